"""The NumPy z-buffer on small triangles with hand-computed results."""

import numpy as np

from deeptalk_jax.rendering.raster import interpolate, rasterise

# (column, row) of a triangle whose corners appear in counter-clockwise order.
CORNERS = np.array([[1.0, 1.0], [1.0, 5.0], [5.0, 1.0]])
FACE = np.array([[0, 1, 2]])


def covered(fragments, size):
    image = np.zeros(size[0] * size[1], bool)
    image[fragments.pixel] = True
    return image.reshape(size)


def test_triangle_covers_pixels_inside_and_on_its_edges():
    seen = rasterise(CORNERS, np.ones(3), FACE, (7, 9))
    expected = np.zeros((7, 9), bool)
    for row in range(1, 6):
        expected[row, 1 : 7 - row] = True
    np.testing.assert_array_equal(covered(seen, (7, 9)), expected)


def test_barycentric_weights_reproduce_positions():
    seen = rasterise(CORNERS, np.ones(3), FACE, (7, 9))
    np.testing.assert_allclose(seen.barycentric.sum(axis=1), 1.0, rtol=1e-6)
    place = interpolate(seen, FACE, CORNERS.astype(np.float32))
    np.testing.assert_allclose(place[:, 1] * 9 + place[:, 0], seen.pixel, atol=1e-4)


def test_back_faces_and_faces_behind_the_camera_are_not_drawn():
    assert len(rasterise(CORNERS, np.ones(3), FACE[:, ::-1], (7, 9)).pixel) == 0
    assert len(rasterise(CORNERS, np.array([1.0, 1.0, 0.0]), FACE, (7, 9)).pixel) == 0


def test_nearer_face_is_visible_in_any_order_of_faces():
    screen = np.concatenate([CORNERS, CORNERS])
    inverse_depth = np.array([0.5, 0.5, 0.5, 0.8, 0.8, 0.8])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    assert set(rasterise(screen, inverse_depth, faces, (7, 9)).face) == {1}
    assert set(rasterise(screen, inverse_depth, faces[::-1], (7, 9)).face) == {0}


def test_intersecting_faces_are_visible_where_they_are_nearer():
    screen = np.array([[0.0, 0.0], [0.0, 8.0], [8.0, 0.0]] * 2)
    inverse_depth = np.array([1.0, 1.0, 0.2, 0.6, 0.6, 0.6])
    seen = rasterise(screen, inverse_depth, np.array([[0, 1, 2], [3, 4, 5]]), (9, 9))
    column = seen.pixel % 9  # The first face falls from 1 to 0.2 over 8 columns and has 0.6 at column 4.
    assert set(seen.face[column < 4]) == {0} and set(seen.face[column > 4]) == {1}


def test_neighbouring_faces_leave_no_crack():
    rng = np.random.default_rng(0)
    centre = rng.random(2) * 3 + 10
    turn = np.linspace(0, -2 * np.pi, 13)[:-1]
    screen = np.concatenate([[centre], 11.3 + 9.0 * np.stack([np.cos(turn), np.sin(turn)], axis=-1)])
    faces = np.array([[0, 1 + i, 1 + (i + 1) % 12] for i in range(12)])
    image = covered(rasterise(screen, np.ones(13), faces, (24, 24)), (24, 24))
    for row in image:
        columns = np.flatnonzero(row)
        assert len(columns) == 0 or len(columns) == np.ptp(columns) + 1
    assert image.sum() > 200


def test_faces_outside_the_picture_are_clipped():
    screen = np.array(
        [[-50.0, -50.0], [-50.0, 60.0], [60.0, -50.0], [90.0, 90.0], [90.0, 99.0], [99.0, 90.0]]
    )
    seen = rasterise(screen, np.ones(6), np.array([[0, 1, 2], [3, 4, 5]]), (4, 6))
    assert sorted(seen.pixel) == [r * 6 + c for r in range(4) for c in range(6)]
    assert set(seen.face) == {0}
