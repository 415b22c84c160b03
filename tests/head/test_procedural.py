"""The embedded head: size, symmetry, regions, and the motion of its mouth, lids and named actions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.actions import ACTION_INDEX, EXPRESSION_ACTIONS
from deeptalk_jax.head.lbs import head_vertices
from deeptalk_jax.head.model import MASK_NAMES, MATERIALS
from deeptalk_jax.head.procedural.anatomy import build_anatomy
from deeptalk_jax.head.procedural.mouth_actions import LIP_CLOSE_JAW_RAD

jitted_vertices = jax.jit(head_vertices)


@pytest.fixture(scope="module")
def anatomy():
    return build_anatomy()


def posed(head, jaw_rad=0.0, **actions):
    expression = np.zeros(50, np.float32)
    for name, value in actions.items():
        expression[ACTION_INDEX[name]] = value
    return np.asarray(jitted_vertices(head, jnp.asarray(expression), jnp.array([jaw_rad, 0.0, 0.0])))


def lip_gap_m(head, vertices):
    upper, lower = head.landmarks["upper_lip_seam"], head.landmarks["lower_lip_seam"]
    return vertices[upper, 1] - vertices[lower, 1]


def test_size_and_joint_positions(head):
    template = np.asarray(head.template)
    assert 4000 <= head.num_vertices <= 8000
    chin, top = template[head.landmarks["chin"], 1], template[:, 1].max()
    assert 0.20 < top - chin < 0.25
    joints = np.asarray(head.joint_regressor) @ template
    np.testing.assert_allclose(joints[3], [0.0313, 0.030, 0.0615], atol=1e-4)
    np.testing.assert_allclose(joints[4], [-0.0313, 0.030, 0.0615], atol=1e-4)
    assert abs(joints[2, 0]) < 1e-6 and -0.02 < joints[2, 1] < 0.02 and -0.02 < joints[2, 2] < 0.02


def test_building_twice_gives_identical_vertices(head, anatomy):
    np.testing.assert_array_equal(np.asarray(head.template), (1e-3 * anatomy.points).astype(np.float32))
    np.testing.assert_array_equal(head.faces, anatomy.faces)


def test_faces_use_each_edge_once_per_direction(head):
    edges = np.concatenate([head.faces[:, [0, 1]], head.faces[:, [1, 2]], head.faces[:, [2, 0]]])
    assert len(np.unique(edges, axis=0)) == len(edges)
    assert (edges[:, 0] != edges[:, 1]).all()


def test_weights_and_regressor_sum_to_one(head):
    np.testing.assert_allclose(head.skinning_weights.sum(axis=1), 1.0, atol=1e-6)
    assert float(head.skinning_weights.min()) >= 0.0
    np.testing.assert_allclose(head.joint_regressor.sum(axis=1), 1.0, atol=1e-5)


def test_masks_are_on_the_parts_of_the_face_that_they_name(head):
    assert set(head.masks) == set(MASK_NAMES)
    template = np.asarray(head.template)
    mean = {name: template[index].mean(axis=0) for name, index in head.masks.items()}
    nose, chin = template[head.landmarks["nose_tip"]], template[head.landmarks["chin"]]
    lips = template[head.masks["lips"]]
    assert lips[:, 1].max() < nose[1] and lips[:, 1].min() > chin[1]
    assert mean["forehead"][1] > mean["eyes"][1] > nose[1] > mean["lips"][1]
    assert template[head.masks["face"], 2].min() > 0.0
    assert set(head.masks["lips"]) <= set(head.masks["face"])
    assert template[head.masks["mouth_interior"], 2].max() < lips[:, 2].max()
    assert not set(head.masks["lips"]) & set(head.masks["mouth_interior"])
    moved = posed(head, lip_pucker=1.0) - template
    assert np.linalg.norm(moved[head.masks["lips"]], axis=1).mean() > 0.003


def test_every_material_is_used(head):
    assert set(head.materials.tolist()) == set(range(len(MATERIALS)))
    assert head.albedo.min() >= 0.0 and head.albedo.max() <= 1.0


def test_lips_are_closed_at_zero_motion(head, anatomy):
    seam = anatomy.layout.mouth_rings[0]
    spokes = len(seam)
    vertices = posed(head)
    opposite = seam[-np.arange(spokes) % spokes]
    np.testing.assert_allclose(vertices[seam], vertices[opposite], atol=1e-7)


def test_jaw_opens_the_mouth_without_moving_the_upper_lip(head):
    neutral, opened = posed(head), posed(head, jaw_rad=0.3)
    assert lip_gap_m(head, opened) > 0.02
    border = head.landmarks["upper_lip_border"]
    assert np.linalg.norm(opened[border] - neutral[border]) < 0.0015
    assert opened[head.landmarks["chin"], 1] < neutral[head.landmarks["chin"], 1] - 0.018


def test_lip_close_closes_the_lips_at_its_jaw_angle(head):
    assert lip_gap_m(head, posed(head, jaw_rad=LIP_CLOSE_JAW_RAD)) > 0.006
    assert abs(lip_gap_m(head, posed(head, jaw_rad=LIP_CLOSE_JAW_RAD, lip_close=1.0))) < 0.0008


def test_eye_close_closes_the_lids_without_entering_the_eyeball(head, anatomy):
    closed = posed(head, eye_close_left=1.0)
    upper, lower = head.landmarks["left_upper_lid"], head.landmarks["left_lower_lid"]
    assert abs(closed[upper, 1] - closed[lower, 1]) < 0.0006
    eyeball = np.flatnonzero(anatomy.part("left_eye"))
    lid_rows = anatomy.layout.eye_rings[0, :4].ravel()
    for amount in (0.0, 0.25, 0.5, 0.75, 1.0):
        vertices = posed(head, eye_close_left=amount)
        centre = np.asarray(head.joint_regressor[3]) @ vertices
        near = np.hypot(*(vertices[lid_rows] - centre)[:, :2].T) < 0.010
        # The cornea bulges, so lids are compared with the eyeball's own depth at the same x and y.
        front = vertices[eyeball][vertices[eyeball, 2] > centre[2]]
        distance = np.linalg.norm(vertices[lid_rows][near][:, None, :2] - front[None, :, :2], axis=-1)
        under = front[distance.argmin(axis=1), 2]
        assert (vertices[lid_rows][near][:, 2] > under - 2e-4).all(), amount


@pytest.mark.parametrize("name", [n for n in EXPRESSION_ACTIONS if n.endswith("_left") and "shift" not in n])
def test_sided_actions_mirror_exactly(head, anatomy, name):
    left = np.asarray(head.expression_directions[..., ACTION_INDEX[name]])
    right = np.asarray(head.expression_directions[..., ACTION_INDEX[name.replace("_left", "_right")]])
    np.testing.assert_array_equal(right, left[anatomy.mirror] * np.float32([-1, 1, 1]))
    side = np.linalg.norm(left, axis=1)
    x = anatomy.points[:, 0]
    assert side[x > 5.0].sum() > 3.0 * side[x < -5.0].sum()


def test_every_action_moves_vertices_by_1_to_35_mm(head):
    reach_mm = 1e3 * np.linalg.norm(np.asarray(head.expression_directions), axis=1).max(axis=0)
    for name, reach in zip(EXPRESSION_ACTIONS, reach_mm, strict=True):
        assert 1.0 < reach < 35.0, f"{name} moves {reach:.1f} mm"


def test_expression_directions_are_linearly_independent(head):
    flat = np.asarray(head.expression_directions).reshape(-1, 50)
    singular = np.linalg.svd(flat / np.linalg.norm(flat, axis=0), compute_uv=False)
    assert singular[-1] > 0.02


@pytest.mark.parametrize(
    ("action", "landmark", "axis", "sign"),
    [
        ("lip_corner_pull_left", "mouth_left", 1, 1),
        ("lip_corner_pull_left", "mouth_left", 0, 1),
        ("lip_corner_depress_right", "mouth_right", 1, -1),
        ("lip_pucker", "mouth_left", 0, -1),
        ("lip_stretch_right", "mouth_right", 0, -1),
        ("upper_lip_raise_left", "upper_lip_border", 1, 1),
        ("chin_raise", "chin", 1, 1),
        ("jaw_thrust", "chin", 2, 1),
        ("jaw_shift_left", "chin", 0, 1),
        ("upper_lid_raise_left", "left_upper_lid", 1, 1),
        ("lid_tighten_right", "right_lower_lid", 1, 1),
        ("cheek_raise_left", "left_lower_lid", 1, 1),
    ],
)
def test_actions_move_landmarks_in_the_expected_direction(head, action, landmark, axis, sign):
    moved = np.asarray(head.expression_directions[head.landmarks[landmark], axis, ACTION_INDEX[action]])
    assert sign * moved > 4e-4
