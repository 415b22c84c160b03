"""The differentiable renderer: agreement with the NumPy rasteriser, gradients, and smooth outlines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.rendering.differentiable import draw
from deeptalk_jax.rendering.raster import interpolate, rasterise
from deeptalk_jax.rendering.visibility import mesh_edges, visible_faces

SIZE = 29
BEHIND = 0.1


def soup(num, seed=0):
    """Random triangles of different sizes that intersect; some are outside the picture, half face away."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-4, SIZE + 4, (num, 1, 2))
    screen = centre + rng.normal(0, 1, (num, 3, 2)) * rng.choice([1, 3, 20], (num, 1, 1))
    nearness = np.clip(rng.uniform(0.2, 0.8, (num, 1)) + rng.normal(0, 0.02, (num, 3)), 0.05, 0.95)
    faces = np.arange(3 * num, dtype=np.int32).reshape(num, 3)
    return screen.reshape(-1, 2).astype(np.float32), nearness.ravel().astype(np.float32), faces


def drawing(faces):
    edges = mesh_edges(faces)

    def picture(screen, nearness, shade):
        return draw(screen, nearness, shade, faces, edges, size=SIZE, background=BEHIND)

    return picture


def test_visible_faces_equal_those_of_the_numpy_rasteriser():
    screen, nearness, faces = soup(150)
    corners = np.concatenate([screen, nearness[:, None]], axis=1)[faces]
    seen = np.asarray(jax.jit(lambda corners: visible_faces(corners, SIZE))(corners))
    fragments = rasterise(screen, nearness, faces, (SIZE, SIZE))
    expected = np.full(SIZE * SIZE, -1)
    expected[fragments.pixel] = fragments.face
    assert 0.5 < np.mean(expected >= 0) < 1.0
    # Ties may be decided differently: pixels on an edge, and depths that round to the same integer.
    assert np.mean(seen.ravel() != expected) < 0.003


@pytest.fixture(scope="module")
def one_triangle():
    """Weighted sum of a picture covered by one triangle, with gradients by vertex positions and shades."""
    faces = np.array([[0, 1, 2]], np.int32)
    picture = drawing(faces)
    weights = np.random.default_rng(1).normal(size=(SIZE, SIZE)).astype(np.float32)

    def value(screen, shade):
        return jnp.sum(weights * picture(screen, jnp.full(3, 0.5), shade))

    return jax.jit(jax.value_and_grad(value, (0, 1)))


def test_gradients_inside_a_face_equal_finite_differences(one_triangle):
    screen = np.float32([[-30, 60], [70, 55], [13, -50]])
    shade = np.float32([0.2, 0.9, 0.5])
    _, gradients = one_triangle(screen, shade)
    for argument, step in ((0, 0.05), (1, 0.05)):
        for index in np.ndindex(gradients[argument].shape):
            moved = [[screen.copy(), shade.copy()] for _ in range(2)]
            for side, sign in enumerate((1, -1)):
                moved[side][argument][index] += sign * step
            (high, _), (low, _) = (one_triangle(*arguments) for arguments in moved)
            slope = (high - low) / (2 * step)
            np.testing.assert_allclose(gradients[argument][index], slope, rtol=5e-3, atol=2e-3)


@pytest.fixture(scope="module")
def two_layers():
    """Sum of the picture of one quadrilateral in front of another, with its gradient by the front vertices."""
    quads = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    picture = drawing(np.concatenate([quads, quads + 4]))
    nearness = np.float32([0.3] * 4 + [0.7] * 4)
    shade = np.float32([0.25] * 4 + [0.75] * 4)

    def total(front, back):
        image = picture(jnp.concatenate([back, front]), nearness, shade)
        return jnp.sum(image), image

    return jax.jit(jax.value_and_grad(total, has_aux=True))


_SQUARE = np.float32([[0, 1], [1, 1], [1, 0], [0, 0]])  # counter-clockwise on the screen, where rows go down
_BACK = 40 * _SQUARE - 5


@pytest.mark.parametrize("turn", [0.0, 0.3, 0.7])
def test_pixels_on_outlines_are_blended_by_covered_area(two_layers, turn):
    rotation = np.float32([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    whole = []
    for shift in (0.0, 0.17, 0.5, 0.83):
        front = (9.0 * _SQUARE - 4.5) @ rotation + np.float32([13.3 + shift, 14.1])
        (total, image), gradient = two_layers(front, _BACK)
        # An area of 81 pixels with grey 0.75 on grey 0.25. The covered share is inexact only at corners.
        assert total == pytest.approx(0.25 * SIZE**2 + 0.5 * 81, abs=0.4)
        assert len(np.unique(np.round(np.asarray(image), 5))) > 3, "outlines are not smoothed"
        # Moving the right side outwards along its normal by one pixel adds the length of the side to the area.
        outwards = np.zeros((4, 2), np.float32)
        outwards[[1, 2]] = np.float32([1, 0]) @ rotation
        assert np.sum(gradient * outwards) == pytest.approx(0.5 * 9, rel=0.15)
        whole.append(np.sum(np.asarray(gradient), axis=0))
    # Moving the whole square does not change its area. This holds on average over shifts, because a corner between
    # pixels counts for only one of its sides.
    assert np.mean(whole, axis=0) == pytest.approx([0, 0], abs=0.7)


def test_gradients_of_outlines_equal_finite_differences(two_layers):
    front = 9.0 * _SQUARE + np.float32([8.37, 9.21])
    front[2] += [1.4, -2.2]
    (_, _), gradient = two_layers(front, _BACK)
    for index in np.ndindex(4, 2):
        high, low = front.copy(), front.copy()
        high[index] += 0.02
        low[index] -= 0.02
        slope = (two_layers(high, _BACK)[0][0] - two_layers(low, _BACK)[0][0]) / 0.04
        assert gradient[index] == pytest.approx(float(slope), abs=0.12), index


def test_hidden_outlines_do_not_change_the_picture(two_layers):
    """A quadrilateral that is completely covered by the front one is not visible."""
    cover = 40 * _SQUARE - 5
    hidden = 9.0 * _SQUARE + np.float32([8.37, 9.21])
    (_, image), _ = two_layers(cover, hidden)
    np.testing.assert_allclose(image, 0.75, atol=1e-6)


def test_batch_equals_single_pictures_and_the_numpy_rasteriser():
    screen, nearness, faces = soup(60, seed=4)
    shade = np.random.default_rng(5).uniform(0, 1, len(screen)).astype(np.float32)
    picture = drawing(faces)
    both = jnp.stack([screen, screen + np.float32([2.3, -1.2])])
    batch = jax.jit(jax.vmap(picture, (0, None, None)))(both, nearness, shade)
    single = jax.jit(picture)
    differing = []
    for moved, image in zip(both, batch, strict=True):
        np.testing.assert_allclose(image, single(moved, nearness, shade), atol=1e-5)
        fragments = rasterise(np.asarray(moved), nearness, faces, (SIZE, SIZE))
        expected = np.full(SIZE * SIZE, BEHIND, np.float32)
        expected[fragments.pixel] = interpolate(fragments, faces, shade[:, None])[:, 0]
        differing.append(np.mean(np.abs(np.asarray(image).ravel() - expected) > 1e-3))
    assert max(differing) < 0.35, "pixels away from outlines differ"
