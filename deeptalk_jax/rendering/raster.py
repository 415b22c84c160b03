"""A z-buffer for small triangle meshes in plain NumPy: which face does each pixel see, and where on it.

Every triangle becomes rows, every row a span of pixels, every pixel a fragment; all of them at once by
repetition, with no Python loop over triangles. The nearest fragment of a pixel wins.
"""

from typing import NamedTuple

import numpy as np


class Fragments(NamedTuple):
    """The visible surface, one entry per covered pixel.

    Attributes:
        pixel: `[p]` index into the flattened image, row * width + column; each at most once.
        face: `[p]` index into the faces given.
        barycentric: `[p, 3]` float32 weights of the face's three corners.
    """

    pixel: np.ndarray
    face: np.ndarray
    barycentric: np.ndarray


def _expand(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts (2, 0, 3): owners (0, 0, 2, 2, 2) and positions (0, 1, 0, 1, 2)."""
    owner = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    first = np.cumsum(counts) - counts
    position = np.arange(len(owner), dtype=np.int32) - np.repeat(first.astype(np.int32), counts)
    return owner, position


def _row_spans(
    edges: np.ndarray, face: np.ndarray, row: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last column of each (face, row); edges are half planes a x + b y + c >= 0."""
    slope = edges[face, :, 0]
    rest = edges[face, :, 1] * row[:, None] + edges[face, :, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -rest / slope
    low = np.where(slope > 0, crossing, -np.inf).max(axis=1)
    high = np.where(slope < 0, crossing, np.inf).min(axis=1)
    low = np.where(np.any((slope == 0) & (rest < 0), axis=1), np.inf, low)
    # Both ends belong to the span: neighbours share their edge pixels, so no cracks; depth settles the rest.
    start = np.ceil(np.clip(low, 0, width) - 1e-9).astype(np.int32)
    stop = np.floor(np.clip(high, -1, width - 1) + 1e-9).astype(np.int32) + 1
    return start, np.maximum(stop, start)


def _edge_functions(corners: np.ndarray, doubled_area: np.ndarray) -> np.ndarray:
    """`[f, 3, 3]` coefficients (a, b, c): a x + b y + c is the barycentric weight of corner i."""
    following, previous = np.roll(corners, -1, axis=1), np.roll(corners, 1, axis=1)
    a = following[..., 1] - previous[..., 1]
    b = previous[..., 0] - following[..., 0]
    c = following[..., 0] * previous[..., 1] - previous[..., 0] * following[..., 1]
    return np.stack([a, b, c], axis=-1) / doubled_area[:, None, None]


def rasterise(
    screen: np.ndarray, inverse_depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]
) -> Fragments:
    """Finds the visible fragment of every pixel.

    Args:
        screen: `[v, 2]` column and row in pixels; the centre of the first pixel is (0, 0), rows go down.
        inverse_depth: `[v]` 1 / distance along the view axis; larger is nearer; not positive is behind the
            camera, and faces that touch it are left out.
        faces: `[f, 3]` vertex indices; faces that are clockwise on the screen as seen with rows going down
            (that is, counter-clockwise with y up) face the camera, the others are culled.
        size: height and width in pixels.

    Returns:
        Fragments, at most one per pixel.
    """
    height, width = size
    corners = screen[faces].astype(np.float64)
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    doubled_area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
    top = np.ceil(np.maximum(corners[..., 1].min(axis=1), 0)).astype(np.int32)
    bottom = np.floor(np.minimum(corners[..., 1].max(axis=1), height - 1)).astype(np.int32)
    visible = (doubled_area < -1e-9) & (bottom >= top) & (inverse_depth[faces].min(axis=1) > 0)
    visible &= (corners[..., 0].max(axis=1) >= 0) & (corners[..., 0].min(axis=1) <= width - 1)
    kept = np.flatnonzero(visible)
    edges = _edge_functions(corners[kept], doubled_area[kept])
    top, bottom = top[kept], bottom[kept]

    row_face, row_position = _expand(bottom - top + 1)
    row = top[row_face] + row_position
    start, stop = _row_spans(edges, row_face, row, width)
    span, column = _expand(stop - start)
    column += start[span]
    fragment_face, fragment_row = row_face[span], row[span]

    planes = np.einsum("fic,fi->fc", edges, inverse_depth[faces[kept]]).astype(np.float32)
    plane = planes[fragment_face]
    depth = plane[:, 0] * column + plane[:, 1] * fragment_row + plane[:, 2]
    pixel = fragment_row * np.int32(width) + column
    # A positive float's bits order as the float does: nearest depth above, fragment number below.
    key = np.maximum(depth, 1e-12).astype(np.float32).view(np.int32).astype(np.int64) << 32
    key |= np.arange(len(key), dtype=np.int64)
    buffer = np.full(height * width, -1, dtype=np.int64)
    np.maximum.at(buffer, pixel, key)
    covered = np.flatnonzero(buffer >= 0)
    winner = buffer[covered] & 0xFFFFFFFF

    local = fragment_face[winner]
    coefficients = edges.astype(np.float32)[local]
    x, y = column[winner, None].astype(np.float32), fragment_row[winner, None].astype(np.float32)
    barycentric = coefficients[..., 0] * x + coefficients[..., 1] * y + coefficients[..., 2]
    return Fragments(covered, kept[local], np.clip(barycentric, 0.0, 1.0))
