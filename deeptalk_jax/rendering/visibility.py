"""A z-buffer in JAX for small pictures: finds the visible face of every pixel and the outlines between pixels.

The results are indices, so this module has no gradients. The caller computes colours and crossings again from the
vertices of the visible faces, differentiably, so the backward pass involves three vertices per pixel instead of all
faces.

The computation is dense and uses no scatters. Faces are sorted by the band of rows in which they begin, so the faces
that can touch a band form one range of the sorted list. Chunks of this range are tested against all pixels of the band
at once. Depth (larger is nearer) and face index are packed into one integer, so the nearest face is a plain maximum.
Memory does not grow with the number of faces, and faces of any size are handled.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from deeptalk_jax.types import Array

BAND_ROWS = 4
_CHUNK = 64
# Twice the area of the smallest triangle that is drawn, in squared pixels. The pixel centres inside thinner triangles
# are covered by their neighbours too.
MIN_DOUBLED_AREA = 1e-2
# Pixels this close to an edge, measured as doubled area in squared pixels, belong to both neighbours to avoid cracks.
_SHARED = 2e-4


class Edges(NamedTuple):
    """The edges of a mesh with the faces on both sides.

    Attributes:
        ends: `[e, 2]` vertex indices of both ends.
        faces: `[e, 2]` face indices; the second is -1 if the edge has one face.
        opposite: `[e, 2]` index of each face's third vertex; the first is repeated if the edge has one face.
    """

    ends: np.ndarray
    faces: np.ndarray
    opposite: np.ndarray


def mesh_edges(faces: Int[np.ndarray, "f 3"]) -> Edges:
    """Returns the distinct edges of a mesh; of an edge with more than two faces, the first two faces are kept."""
    sides = np.concatenate([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]])
    owner = np.tile(np.arange(len(faces)), 3)
    third = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    ends, edge = np.unique(np.sort(sides, axis=1), axis=0, return_inverse=True)
    order = np.argsort(edge.ravel(), kind="stable")
    edge = edge.ravel()[order]
    first = np.searchsorted(edge, np.arange(len(ends)))
    second = np.minimum(first + 1, len(edge) - 1)
    has_second = (second > first) & (edge[second] == np.arange(len(ends)))
    second = np.where(has_second, second, first)
    owners = np.stack([owner[order[first]], np.where(has_second, owner[order[second]], -1)], axis=-1)
    opposite = np.stack([third[order[first]], third[order[second]]], axis=-1)
    return Edges(ends.astype(np.int32), owners.astype(np.int32), opposite.astype(np.int32))


def doubled_area(corners: Float[Array, "*b 3 2"]) -> Float[Array, "*b"]:
    """Computes twice the signed area of triangles on the screen (rows go down); positive if they face the camera."""
    (x0, x1, x2), (y0, y1, y2) = (jnp.moveaxis(corners[..., axis], -1, 0) for axis in (0, 1))
    return (y1 - y0) * (x2 - x0) - (x1 - x0) * (y2 - y0)


def _index_bits(num: int) -> int:
    return max(num - 1, 1).bit_length()


def _num_bands(size: int) -> int:
    return -(-size // BAND_ROWS)


def _nearest_in_bands(
    planes: Float[Array, "p n"],
    first: Int[Array, " n"],
    last: Int[Array, " n"],
    kept: Bool[Array, " n"],
    num_bands: int,
    keys_of: Callable[[Array, Array, Array], Array],
    size: int,
) -> Int[Array, "bands rows size"]:
    """Returns the largest key at every pixel of every band.

    Args:
        planes: p numbers that describe each of n primitives; `keys_of` must give no key for primitives not in `kept`.
        first: index of the first band that each primitive touches.
        last: index of the last band that each primitive touches.
        kept: which primitives are considered.
        num_bands: number of bands.
        keys_of: (band, planes `[p, c]`, indices `[c]`) -> keys `[c, rows, size]`, -1 where a primitive does not cover.
        size: number of pixels in a row.
    """
    num = planes.shape[1]
    index_bits = _index_bits(num)
    # Most primitives touch at most two bands. The few longer ones are sorted into a second list; in a common list,
    # every band would have to search back as far as the longest primitive reaches.
    long = last - first > 1
    reach = jnp.stack([jnp.ones((), jnp.int32), jnp.max(jnp.where(kept, last - first, 0))])
    place = jnp.where(kept, first + jnp.where(long, num_bands, 0), 2 * num_bands)
    # Sorting one integer is faster than sorting pairs.
    order = jnp.sort((place << index_bits) | jnp.arange(num))
    indices = order & ((1 << index_bits) - 1)
    starts = jnp.searchsorted(order, jnp.arange(2 * num_bands + 1) << index_bits)
    # A chunk may extend beyond the end of its range. The additional primitives are tested like all others, so they
    # cannot produce a wrong key.
    planes = jnp.pad(planes[:, indices], ((0, 0), (0, _CHUNK)), mode="edge")
    indices = jnp.pad(indices, (0, _CHUNK), mode="edge")

    def merge(band, carry):
        start, best = carry
        part = jax.lax.dynamic_slice_in_dim(planes, start, _CHUNK, axis=1)
        keys = keys_of(band, part, jax.lax.dynamic_slice_in_dim(indices, start, _CHUNK))
        return start + _CHUNK, jnp.maximum(best, jnp.max(keys, axis=0))

    def band_keys(band):
        def with_list(number, best):
            offset = number * num_bands
            begin, stop = starts[offset + jnp.maximum(band - reach[number], 0)], starts[offset + band + 1]
            return jax.lax.while_loop(lambda carry: carry[0] < stop, partial(merge, band), (begin, best))[1]

        return jax.lax.fori_loop(0, 2, with_list, jnp.full((BAND_ROWS, size), -1, jnp.int32))

    return jax.lax.map(band_keys, jnp.arange(num_bands))


def _key(depth: Array, indices: Array, num: int) -> Array:
    """Packs depth in [0, 1] (high bits) and index (low bits) into 31 bits."""
    index_bits = _index_bits(num)
    top = (1 << min(31 - index_bits, 24)) - 1  # float32 represents integers exactly up to 24 bits.
    scaled = jnp.clip(depth * top, 0, top).astype(jnp.int32)
    return (scaled << index_bits) | indices


def _winner(keys: Array, num: int) -> Array:
    """Returns the index that a key contains, -1 for the key -1."""
    index_bits = _index_bits(num)
    return jnp.where(keys < 0, -1, keys & ((1 << index_bits) - 1))


def visible_faces(corners: Float[Array, "f 3 3"], size: int) -> Int[Array, "size size"]:
    """Returns the index of the face that is visible at the centre of each pixel, -1 for none.

    Args:
        corners: column, row and nearness of the corners of every face. Only faces whose corners appear in
            counter-clockwise order are drawn. Columns and rows are in pixels; (0, 0) is the centre of the first pixel
            and rows go down. The nearness is a scaled inverse depth in [0, 1], which is linear on the screen; larger
            is nearer.
        size: side of the picture in pixels.
    """
    corners = jax.lax.stop_gradient(corners)
    middle = 0.5 * (
        size - 1
    )  # Coordinates relative to the centre are small and keep more digits in products.
    corners, depth, num_faces = corners[..., :2], corners[..., 2], len(corners)
    (x0, x1, x2), (y0, y1, y2) = jnp.moveaxis(corners - middle, (1, 2), (1, 0))
    area = doubled_area(corners)
    edges = [
        (y - yy, xx - x, x * yy - xx * y)
        for x, y, xx, yy in ((x2, y2, x1, y1), (x0, y0, x2, y2), (x1, y1, x0, y0))
    ]
    # Each edge function is the doubled area times a barycentric weight, and positive inside the face.
    scale = 1.0 / jnp.maximum(area, MIN_DOUBLED_AREA)
    slopes = [
        sum(edge[part] * depth[:, corner] for corner, edge in enumerate(edges)) * scale for part in (0, 1)
    ]
    offset = depth[:, 0] - slopes[0] * x0 - slopes[1] * y0
    planes = jnp.stack([*(part for edge in edges for part in edge), *slopes, offset])  # [12, f]
    low, high = jnp.min(corners, axis=1), jnp.max(corners, axis=1)
    low, high = jnp.ceil(low - 1e-3), jnp.floor(high + 1e-3)
    kept = (area > MIN_DOUBLED_AREA) & jnp.all((low <= high) & (high >= 0) & (low <= size - 1), axis=1)
    planes = jnp.where(kept, planes, 0.0).at[2].add(jnp.where(kept, 0.0, -1.0))
    rows = jnp.clip(jnp.stack([low[:, 1], high[:, 1]]), 0, size - 1).astype(jnp.int32)
    columns = jnp.arange(size, dtype=jnp.float32)[None, None, :] - middle

    def keys_of(band, planes, indices):
        a0, b0, c0, a1, b1, c1, a2, b2, c2, a3, b3, c3 = planes[:, :, None, None]
        y = (band * BAND_ROWS + jnp.arange(BAND_ROWS))[None, :, None].astype(jnp.float32) - middle
        inside = jnp.minimum(a0 * columns + (b0 * y + c0), a1 * columns + (b1 * y + c1))
        inside = jnp.minimum(inside, a2 * columns + (b2 * y + c2)) >= -_SHARED
        key = _key(a3 * columns + (b3 * y + c3), indices[:, None, None], num_faces)
        return jnp.where(inside, key, -1)

    first, last = rows // BAND_ROWS
    num_bands = _num_bands(size)
    keys = _nearest_in_bands(planes, first, last, kept, num_bands, keys_of, size)
    return _winner(keys.reshape(num_bands * BAND_ROWS, size)[:size], num_faces)


def silhouette(corners: Float[Array, "f 3 2"], edges: Edges) -> tuple[Bool[Array, " e"], Int[Array, " e"]]:
    """Finds the edges that have a face towards the camera on exactly one side.

    Args:
        corners: columns and rows of the corners of every face, pixels.
        edges: edges of the mesh.

    Returns:
        Whether each edge is such an edge, and the third vertex of its face towards the camera.
    """
    front = doubled_area(corners) > 0.0
    first, second = front[edges.faces[:, 0]], front[edges.faces[:, 1]] & (edges.faces[:, 1] >= 0)
    return first != second, jnp.where(first, edges.opposite[:, 0], edges.opposite[:, 1])


def crossing(ends: Float[Array, "*b 2 2"], place: Float[Array, "*b"]) -> tuple[Array, Array]:
    """Intersects lines with a given coordinate along their axis.

    Args:
        ends: both ends of each line as (coordinate along the axis, coordinate across it).
        place: coordinate along the axis.

    Returns:
        The coordinate across the axis, and the position as a share of the way from the first end to the second.
    """
    along, across = ends[..., 0], ends[..., 1]
    length = along[..., 1] - along[..., 0]
    share = (place - along[..., 0]) / jnp.where(jnp.abs(length) < 1e-6, 1.0, length)
    return across[..., 0] + share * (across[..., 1] - across[..., 0]), share


def outlines(ends: Float[Array, "e 2 3"], kept: Bool[Array, " e"], size: int) -> Int[Array, "2 size size"]:
    """Returns the index of the nearest edge that passes between neighbouring pixels, -1 for none.

    Steep edges separate pixels of a row and flat edges separate pixels of a column, so every point of an edge counts
    in one direction only.

    Args:
        ends: column, row and nearness of both ends of every edge, as in `visible_faces`.
        kept: which edges are considered, see `silhouette`.
        size: side of the picture in pixels.

    Returns:
        Entry `[0, r, c]` is the edge between the pixels (r, c) and (r, c + 1); entry `[1, c, r]` is the edge between
        the pixels (r, c) and (r + 1, c).
    """
    ends = jax.lax.stop_gradient(ends)
    depth, num_edges = ends[..., 2], len(ends)
    num_bands = _num_bands(size)
    columns = jnp.arange(size)[None, None, :]

    points = jnp.stack([ends[..., 1::-1], ends[..., :2]])  # [direction, e, 2, (along, across)]
    extents = jnp.abs(points[:, :, 1] - points[:, :, 0])
    tie = jnp.array([[True], [False]])
    steeps = (extents[..., 0] > extents[..., 1]) | (tie & (extents[..., 0] == extents[..., 1]))

    def in_direction(ends_and_steep):
        ends, steep = ends_and_steep
        low, high = (jnp.ceil(f(ends[..., 0], axis=1)) for f in (jnp.min, jnp.max))
        high = high - 1.0  # The interval is half open, so only one of two edges counts where they meet.
        slope = (ends[:, 1, 1] - ends[:, 0, 1]) / jnp.where(steep, ends[:, 1, 0] - ends[:, 0, 0], 1.0)
        rise = (depth[:, 1] - depth[:, 0]) / jnp.where(steep, ends[:, 1, 0] - ends[:, 0, 0], 1.0)
        begin = ends[:, 0, 0]
        planes = jnp.stack(
            [low, high, slope, ends[:, 0, 1] - slope * begin, rise, depth[:, 0] - rise * begin]
        )
        inside = (jnp.max(ends[..., 1], axis=1) >= 0) & (jnp.min(ends[..., 1], axis=1) <= size - 1)
        use = kept & steep & inside & (low <= high) & (high >= 0) & (low <= size - 1)
        planes = jnp.where(use, planes, -1.0)  # An edge that ends before the first row has no key.

        def keys_of(band, planes, indices):
            low, high, slope, start, rise, depth = planes[:, :, None]
            row = (band * BAND_ROWS + jnp.arange(BAND_ROWS))[None, :].astype(jnp.float32)
            column = jnp.floor(slope * row + start).astype(jnp.int32)
            column = jnp.where((row >= low) & (row <= high) & (column < size - 1), column, -1)
            key = _key(rise * row + depth, indices[:, None], num_edges)
            return jnp.where(column[..., None] == columns, key[..., None], -1)

        first, last = jnp.clip(jnp.stack([low, high]), 0, size - 1).astype(jnp.int32) // BAND_ROWS
        keys = _nearest_in_bands(planes, first, last, use, num_bands, keys_of, size)
        return _winner(keys.reshape(num_bands * BAND_ROWS, size)[:size], num_edges)

    return jax.lax.map(in_direction, (points, steeps))
