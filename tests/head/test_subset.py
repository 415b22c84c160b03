"""Head subsets: their vertices move as in the whole head, and their faces, masks and landmarks are renumbered."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.lbs import head_vertices
from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.subset import head_subset


def test_vertices_of_a_subset_move_as_in_the_whole_head():
    head = load_head("procedural")
    vertices = np.arange(3, head.num_vertices, 41)
    part = head_subset(head, vertices)
    rng = np.random.default_rng(0)
    expression, jaw, neck = (
        jnp.asarray(scale * rng.normal(size=(2, n)), jnp.float32)
        for scale, n in ((0.5, 50), (0.2, 3), (0.1, 3))
    )
    shape = jnp.asarray(rng.normal(size=(2, 7)), jnp.float32)
    whole, few = (
        head_vertices(h, expression, jaw, neck_pose=neck, shape=shape, global_rotation=neck)
        for h in (head, part)
    )
    np.testing.assert_allclose(few[:, : len(vertices)], whole[:, vertices], atol=2e-7)


def test_masks_landmarks_and_faces_of_a_subset_refer_to_the_same_points():
    head = load_head("procedural")
    vertices = np.union1d(head.masks["lips"], head.faces[:50])
    part = head_subset(head, vertices)
    np.testing.assert_array_equal(vertices[part.masks["lips"]], head.masks["lips"])
    assert vertices[part.landmarks["mouth_left"]] == head.landmarks["mouth_left"]
    np.testing.assert_array_equal(vertices[part.faces[:50]], head.faces[:50])
    assert part.faces.max() < len(vertices)


@pytest.mark.parametrize(
    ("vertices", "message"),
    [
        ([3, 3], "not sorted"),
        ([], "not sorted"),
        ([-1, 2], "not sorted"),
        ([0, 10**6], "vertex index 1000000 is out of range"),
    ],
)
def test_unsorted_or_out_of_range_vertices_raise(vertices, message):
    with pytest.raises(ValueError, match=message):
        head_subset(load_head("procedural"), np.array(vertices, int))
