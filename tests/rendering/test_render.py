"""Rendered frames of the embedded head: background, views, an opening mouth, and rejected arguments."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.load import load_head
from deeptalk_jax.rendering.render import background, frame_head, render_frames

SIZE = 96


@pytest.fixture(scope="module")
def head():
    return load_head("procedural")


@pytest.fixture(scope="module")
def vertices(head):
    motion = np.zeros((2, 53), np.float32)
    motion[1, 50] = 0.25
    return np.asarray(motion_vertices(head, jnp.asarray(motion)))


def test_background_is_unchanged_around_the_head(head, vertices):
    image = next(render_frames(head, vertices[:1], size=SIZE))
    assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
    empty = background(SIZE)
    np.testing.assert_array_equal(image[:20, :8], empty[:20, :8])
    np.testing.assert_array_equal(image[:, -3:], empty[:, -3:])
    changed = (image != empty).any(axis=-1)
    assert 0.3 < changed.mean() < 0.75 and changed[SIZE // 2, SIZE // 2]


def test_opening_the_jaw_darkens_the_mouth_and_not_the_forehead(head, vertices):
    closed, opened = render_frames(head, vertices, size=SIZE)
    camera = frame_head(np.asarray(head.template), SIZE, "front")
    seams = vertices[1][[head.landmarks["upper_lip_seam"], head.landmarks["lower_lip_seam"]]]
    (column, row), _ = camera.project(seams.mean(axis=0, keepdims=True))[0][0], None
    column, row = round(float(column)), round(float(row))
    assert opened[row, column].mean() < 0.5 * closed[row, column].mean()
    np.testing.assert_array_equal(opened[: SIZE // 3], closed[: SIZE // 3])


def test_three_quarter_view_shows_the_left_cheek(head, vertices):
    front, turned = (
        next(render_frames(head, vertices[:1], size=SIZE, view=v)) for v in ("front", "three_quarter")
    )
    assert (front != turned).any()
    camera = frame_head(np.asarray(head.template), SIZE, "three_quarter")
    screen, _ = camera.project(np.asarray(head.template))
    assert screen[head.landmarks["nose_tip"], 0] < SIZE / 2 - 5


def test_supersampling_keeps_size_and_changes_the_picture_little(head, vertices):
    plain, smooth = (
        next(render_frames(head, vertices[:1], size=SIZE, supersample=s)).astype(int) for s in (False, True)
    )
    assert plain.shape == smooth.shape and np.abs(plain - smooth).mean() < 4.0


def test_wrong_arguments_raise_before_the_first_frame(head, vertices):
    with pytest.raises(ValueError, match=r"unknown view 'side'; choose from front, three_quarter"):
        render_frames(head, vertices, view="side")
    with pytest.raises(ValueError, match=r"vertices have shape .*expected \[t, "):
        render_frames(head, vertices[0])
    with pytest.raises(ValueError, match=r"size is 0"):
        render_frames(head, vertices, size=0)
