"""A z-buffer for small triangle meshes in plain NumPy: finds the visible face and the point on it for every pixel.

Triangles are split into rows, rows into spans of pixels, and spans into fragments. `np.repeat` does this for all
triangles at once, without a Python loop over them. The nearest fragment of a pixel is visible. NumPy keeps the
renderer free of system graphics libraries and of compilation.
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix


class Fragments(NamedTuple):
    """The visible surface, with one entry per covered pixel.

    Attributes:
        pixel: `[p]` distinct indices into the flattened image: row * width + column.
        face: `[p]` index of the visible face.
        barycentric: `[p, 3]` float32 weights of the face's three corners.
    """

    pixel: np.ndarray
    face: np.ndarray
    barycentric: np.ndarray


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expands counts to owners and positions: (2, 0, 3) gives (0, 0, 2, 2, 2) and (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    first = np.cumsum(counts) - counts
    position = np.arange(len(owner), dtype=np.int32) - np.repeat(first.astype(np.int32), counts)
    return owner, position


def _row_spans(
    edges: list[np.ndarray], face: np.ndarray, row: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and one-past-last column of each (face, row); edges are half planes a x + b y + c >= 0."""
    low = np.zeros(len(row))
    high = np.full(len(row), width - 1.0)
    for slope, per_row, constant in edges:
        inverse = 1.0 / np.where(slope == 0.0, 1e-30, slope)
        # A horizontal edge crosses the row at +-1e30, so it keeps the whole row or none of it.
        crossing = (-inverse * per_row)[face] * row - (inverse * constant)[face]
        rising = (slope >= 0.0)[face]
        low = np.maximum(low, np.where(rising, crossing, low))
        high = np.minimum(high, np.where(rising, high, crossing))
    # Both ends belong to the span. Neighbouring faces share their edge pixels, which avoids cracks; depth decides.
    start = np.ceil(np.minimum(low, width) - 1e-9).astype(np.int32)
    stop = np.floor(np.maximum(high, -1.0) + 1e-9).astype(np.int32) + 1
    return start, np.maximum(stop, start)


def _edge_functions(x: np.ndarray, y: np.ndarray, doubled_area: np.ndarray) -> list[np.ndarray]:
    """Returns (a, b, c) `[3, f]` for each corner; a x + b y + c is the corner's barycentric weight at (x, y)."""
    functions = []
    for corner in range(3):
        following, previous = (corner + 1) % 3, (corner + 2) % 3
        a = y[following] - y[previous]
        b = x[previous] - x[following]
        c = x[following] * y[previous] - x[previous] * y[following]
        functions.append(np.stack([a, b, c]) / doubled_area)
    return functions


def _barycentric(edges: list[np.ndarray], face: np.ndarray, pixel: np.ndarray, width: int) -> np.ndarray:
    """Evaluates the edge functions at the pixel centres: barycentric weights `[p, 3]` float32."""
    row, column = (part.astype(np.float32) for part in np.divmod(pixel.astype(np.int32), np.int32(width)))
    weights = np.empty((len(face), 3), np.float32)
    for corner in (0, 1):
        a, b, c = edges[corner].astype(np.float32)
        weights[:, corner] = np.clip(a[face] * column + b[face] * row + c[face], 0.0, 1.0)
    weights[:, 2] = np.clip(1.0 - weights[:, 0] - weights[:, 1], 0.0, 1.0)
    return weights


def rasterise(
    screen: np.ndarray, inverse_depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> Fragments:
    """Finds the visible fragment of every pixel.

    Args:
        screen: `[v, 2]` column and row in pixels; (0, 0) is the centre of the first pixel and rows go down.
        inverse_depth: `[v]` 1 / distance along the view axis; larger is nearer. Vertices with values <= 0 are behind
            the camera, and their faces are not drawn.
        faces: `[f, 3]` vertex indices; only faces whose corners appear in counter-clockwise order are drawn.
        size: height and width in pixels.

    Returns:
        Fragments, at most one per pixel.
    """
    height, width = size
    x, y = (np.ascontiguousarray(screen[:, axis][faces].T, dtype=np.float64) for axis in range(2))  # [3, f]
    doubled_area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    low_x, high_x = np.minimum(np.minimum(x[0], x[1]), x[2]), np.maximum(np.maximum(x[0], x[1]), x[2])
    low_y, high_y = np.minimum(np.minimum(y[0], y[1]), y[2]), np.maximum(np.maximum(y[0], y[1]), y[2])
    top = np.ceil(np.maximum(low_y, 0.0)).astype(np.int32)
    bottom = np.floor(np.minimum(high_y, height - 1.0)).astype(np.int32)
    visible = (doubled_area < -1e-9) & (bottom >= top) & (high_x >= 0.0) & (low_x <= width - 1.0)
    visible &= (inverse_depth > 0.0)[faces].all(axis=1)
    kept = np.flatnonzero(visible)
    edges = _edge_functions(x[:, kept], y[:, kept], doubled_area[kept])
    top, bottom = top[kept], bottom[kept]

    row_face, row_position = _expand(bottom - top + 1)
    row = top[row_face] + row_position
    start, stop = _row_spans(edges, row_face, row, width)
    # Fragments are numbered span after span. Quantities that change along a span are linear in this number, and all
    # others are repeated per span, which is much faster than an index lookup per fragment.
    counts = stop - start
    number = np.arange(int(counts.sum()), dtype=np.int32)
    shift = start - (np.cumsum(counts, dtype=np.int32) - counts)  # column = number + shift
    row_start = row * np.int32(width)
    pixel = number + np.repeat(row_start + shift, counts)

    # Inverse depth is linear in screen coordinates.
    corner_depth = inverse_depth[faces[kept]].T
    plane = sum(edge * depth for edge, depth in zip(edges, corner_depth, strict=True))  # [3, f]
    row_slope = plane[0][row_face]
    row_depth = plane[1][row_face] * row + plane[2][row_face] + row_slope * shift
    depth = (np.repeat(row_slope, counts) * number + np.repeat(row_depth, counts)).astype(np.float32)
    # The bits of positive floats sort like the floats, so one integer holds depth (high) and fragment number (low).
    key = np.maximum(depth, np.float32(1e-12)).view(np.int32).astype(np.int64) << 32
    key |= number
    buffer = np.full(height * width, -1, dtype=np.int64)
    np.maximum.at(buffer, pixel, key)
    covered = np.flatnonzero(buffer >= 0)
    winner = (buffer[covered] & 0xFFFFFFFF).astype(np.int32)

    local = np.repeat(row_face, counts)[winner]
    return Fragments(covered, kept[local], _barycentric(edges, local, covered, width))


def interpolate(fragments: Fragments, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolates vertex values at the visible points.

    Args:
        fragments: result of `rasterise` with p pixels.
        faces: `[f, 3]` faces that were passed to `rasterise`.
        values: `[v, d]` float32 values at the vertices.

    Returns:
        `[p, d]` float32 values at the visible points.
    """
    num_pixels = len(fragments.pixel)
    starts = np.arange(0, 3 * num_pixels + 1, 3, dtype=np.int32)
    corners = faces[fragments.face].ravel()
    weights = csr_matrix((fragments.barycentric.ravel(), corners, starts), (num_pixels, len(values)))
    return weights @ values
