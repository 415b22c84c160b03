"""Mouth crops: contents, agreement with the NumPy rasteriser, gradients, batches and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from deeptalk_jax.collectives import over_mesh, rows_apart
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.load import load_head
from deeptalk_jax.rendering.mouth import mouth_renderer
from deeptalk_jax.rendering.raster import interpolate, rasterise
from deeptalk_jax.training.mesh import batch_sharding, make_mesh
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM

SIZE = 88
JAW = EXPRESSION_DIM


@pytest.fixture(scope="module")
def renderer():
    return mouth_renderer(load_head("procedural"), SIZE)


@pytest.fixture(scope="module")
def draw(renderer):
    """Weighted sum of the pictures and the pictures themselves, with the gradient of the sum by the motion."""
    weights = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    weights = (10 * gaussian_filter(weights, 4)).astype(np.float32)

    def value(motion):
        pictures = renderer.from_motion(motion)
        return jnp.sum(weights[None, None] * pictures), pictures

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def frames(*jaw_rad):
    motion = 0.1 * np.random.default_rng(1).uniform(size=(1, len(jaw_rad), MOTION_DIM)).astype(np.float32)
    motion[..., JAW:] = 0.0
    motion[0, :, JAW] = jaw_rad
    return motion


def test_open_mouth_is_dark_inside(draw):
    (_, pictures), _ = draw(frames(0.0, 0.3))
    shut, wide = np.asarray(pictures[0])
    assert wide[SIZE // 2, SIZE // 2] < 0.3 < shut[SIZE // 2 - 6, SIZE // 2]
    dark = [np.mean(picture[20:-20, 20:-20] < 0.3) for picture in (shut, wide)]
    assert dark[0] < 0.05 and dark[1] > 0.1
    assert pictures.min() >= 0.0 and pictures.max() <= 1.0


def test_picture_equals_the_numpy_rasteriser_except_on_outlines(renderer, draw):
    motion = frames(0.05, 0.25)
    (_, pictures), _ = draw(motion)
    for frame, picture in zip(motion[0], pictures[0], strict=True):
        vertices = motion_vertices(renderer.head, frame)[: len(renderer.vertices)]
        screen, nearness = renderer.project(vertices)
        seen = rasterise(np.asarray(screen), np.asarray(nearness), renderer.faces, (SIZE, SIZE))
        expected = interpolate(seen, renderer.faces, np.asarray(renderer.shade(vertices))[:, None])[:, 0]
        difference = np.abs(np.asarray(picture).ravel()[seen.pixel] - expected)
        assert np.median(difference) < 1e-4
        assert np.mean(difference > 0.01) < 0.15


def test_faces_that_are_not_drawn_are_not_visible_in_the_crop(renderer):
    """Compares with the whole head in the inner 60 % of the crop; the neck, visible in its corners, is cut earlier."""
    head = load_head("procedural")
    whole = renderer._replace(head=head)
    drawn = {tuple(face) for face in np.sort(renderer.vertices[renderer.faces], axis=1)}
    missing = []
    for frame in 2.0 * frames(0.05, 0.1, 0.13)[0]:
        screen, nearness = (np.asarray(values) for values in whole.project(motion_vertices(head, frame)))
        fragments = rasterise(screen, nearness, head.faces, (SIZE, SIZE))
        away = np.abs(np.stack(np.divmod(fragments.pixel, SIZE)) - SIZE // 2).max(axis=0)
        seen = fragments.face[away < 0.3 * SIZE]
        missing.append(np.mean([tuple(face) not in drawn for face in np.sort(head.faces[seen], axis=1)]))
    assert max(missing) < 0.01


def test_gradients_equal_finite_differences(draw):
    """Covers shading, projection and outlines together, with steps that move outlines by fractions of a pixel.

    The tolerance is 25 %. Where surfaces intersect (touching lips, the tongue), the line between them is not an edge of
    the mesh and has no gradient, and creases thinner than a pixel appear and disappear.
    """
    motion = frames(0.05, 0.15)
    _, gradient = draw(motion)
    # Both frames are moved and their gradients added, because drawing one frame would need another compilation.
    for index in (JAW, *np.argsort(-np.abs(np.asarray(gradient)[0]).sum(0))[:3]):
        step = 0.01 if index == JAW else 0.05
        values = []
        for sign in (1, -1):
            moved = motion.copy()
            moved[..., index] += sign * step
            values.append(float(draw(moved)[0][0]))
        slope = (values[0] - values[1]) / (2 * step)
        assert float(gradient[0, :, index].sum()) == pytest.approx(slope, rel=0.25), index


def test_batch_equals_its_clips_one_by_one(renderer, draw):
    motion = np.concatenate([frames(0.1, 0.2), frames(0.3, 0.0)])
    pictures = jax.jit(renderer.from_motion)(motion)
    assert pictures.shape == (2, 2, SIZE, SIZE)
    for row in range(2):
        difference = np.abs(pictures[row] - draw(motion[row : row + 1])[0][1][0])
        assert np.median(difference) < 1e-4
        assert np.mean(difference > 2e-3) < 0.01


def test_head_without_lips_or_size_of_zero_raises(synthetic_flame_head):
    with pytest.raises(ValueError, match="'synthetic FLAME' has no lips to draw"):
        mouth_renderer(synthetic_flame_head)
    with pytest.raises(ValueError, match="size is 0; expected at least 1 pixel"):
        mouth_renderer(load_head("procedural"), 0)


def test_devices_draw_their_rows_without_communication():
    """Without `rows_apart`, every iteration of the renderer's loops would wait for all devices."""
    mesh = make_mesh(num_devices=4)
    renderer = mouth_renderer(load_head("procedural"), 8)
    motion = np.zeros((4, 1, 53), np.float32)
    motion[:, 0, 50] = (0.0, 0.1, 0.2, 0.3)

    def draw(motion):
        with over_mesh(mesh):
            return rows_apart(renderer.from_motion)(motion)

    sharding = batch_sharding(mesh)
    apart, together = (
        jax.jit(function, in_shardings=sharding, out_shardings=sharding).lower(motion).compile()
        for function in (draw, renderer.from_motion)
    )
    assert "all-reduce" in together.as_text()
    assert "all-reduce" not in apart.as_text() and "all-gather" not in apart.as_text()
    rows = jax.device_put(motion, sharding)
    np.testing.assert_allclose(apart(rows), together(rows), rtol=1e-5, atol=1e-6)
