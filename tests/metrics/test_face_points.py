"""Signals of lips, lids and brows on the embedded head."""

import dataclasses

import numpy as np
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.head.load import load_head
from deeptalk_jax.metrics.eyelids import CLOSED_OPENING
from deeptalk_jax.metrics.face_points import FacePoints, lid_points, lip_points


@pytest.fixture(scope="module")
def head():
    return load_head("procedural")


@pytest.fixture(scope="module")
def points(head):
    return FacePoints(head)


def pose(frames=5, jaw=0.0, **actions):
    motion = np.zeros((frames, 53), np.float32)
    motion[:, 50] = jaw
    for name, value in actions.items():
        motion[:, ACTION_INDEX[name]] = value
    return motion


def test_the_face_at_rest_has_no_gap_and_open_eyes(points):
    signals = points.signals(pose())
    np.testing.assert_allclose(signals.lip_gap, 0.0, atol=1e-4)
    np.testing.assert_allclose(signals.lid_opening, 1.0, rtol=1e-5)
    assert signals.brow_acceleration.shape == signals.lid_acceleration.shape == (3,)
    np.testing.assert_allclose(signals.brow_acceleration, 0.0, atol=1e-5)


def test_the_jaw_opens_the_lips_and_lip_close_closes_them(points):
    opened = points.signals(pose(jaw=0.1)).lip_gap
    closed = points.signals(pose(jaw=0.1, lip_close=1.0)).lip_gap
    assert opened[0] > 5.0
    assert closed[0] < 0.25 * opened[0]


def test_pucker_narrows_the_mouth(points):
    assert points.signals(pose(lip_pucker=1.0)).mouth_width[0] < points.signals(pose()).mouth_width[0] - 3.0


def test_eyes_close_by_both_lids(points):
    def opening(**actions):
        return points.signals(pose(**actions)).lid_opening[0]

    both = opening(eye_close_left=1.0, eye_close_right=1.0)
    one = opening(eye_close_left=1.0)
    assert both < CLOSED_OPENING
    assert one == pytest.approx((1 + both) / 2, abs=0.05)
    assert opening(upper_lid_raise_left=1.0, upper_lid_raise_right=1.0) > 1.1


def test_acceleration_is_that_of_the_vertices(points, head):
    """One coefficient that steps by 1 at one frame: second differences 1, -1, in units of its direction."""
    motion = pose(6)
    name = ACTION_INDEX["inner_brow_raise_left"]
    motion[3:, name] = 1.0
    moved = np.linalg.norm(np.asarray(head.expression_directions)[head.masks["forehead"], :, name], axis=1)
    expected = 1000.0 * moved.mean()
    found = points.signals(motion).brow_acceleration
    np.testing.assert_allclose(found, [0.0, expected, expected, 0.0], rtol=1e-3, atol=1e-4)


def test_padding_does_not_enter(points):
    motion = np.random.default_rng(0).normal(0.0, 0.1, (131, 53)).astype(np.float32)
    whole, part = points.signals(motion), points.signals(motion[:50])
    for name, values in part._asdict().items():
        np.testing.assert_allclose(
            values, getattr(whole, name)[: len(values)], rtol=1e-4, atol=1e-5, err_msg=name
        )


def test_lips_lie_above_each_other_and_lids_too(head):
    template = np.asarray(head.template)
    upper, lower, (left, right) = lip_points(head)
    assert len(upper) == len(lower) == 4
    assert template[upper, 1].mean() > template[lower, 1].mean()
    assert template[left, 0] > 0.02 and template[right, 0] < -0.02
    above, below = lid_points(head)
    opening_mm = 1000 * (template[above, 1] - template[below, 1])
    assert np.all((opening_mm > 8.0) & (opening_mm < 13.0))  # `layout.lid_edge`: 6.3 + 4.7 mm
    np.testing.assert_allclose(template[above[0], 0], -template[above[1], 0], atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("eyes", "its mask 'eyes' has no lids at the joint left_eye; expected skin"),
        ("lips", "its mask 'lips' has no vertices of both lips"),
    ],
)
def test_a_head_without_the_points_is_refused(head, mask, message):
    masks = {**head.masks, mask: head.masks[mask][:1]}
    with pytest.raises(UserError, match=f"head 'procedural': {message}"):
        FacePoints(head.replace(surface=dataclasses.replace(head.surface, masks=masks)))
