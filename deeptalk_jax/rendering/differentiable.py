"""A differentiable renderer for small meshes: z-buffer, Gouraud shading, and outlines smoothed over one pixel.

Inside the surface, a pixel is the barycentric mean of its face's corners. Where an outline passes between two pixels,
the pixel that it cuts is blended with the other pixel's colour in proportion to the covered area. The picture is then
continuous in the outline's position and has a gradient with respect to it (analytic antialiasing: Laine et al.,
SIGGRAPH Asia 2020). Departure from the paper: outlines are searched among all edges instead of the edges of the
visible face, because faces next to the outline of a rounded lip are seen edge-on and much thinner than a pixel.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.rendering.gather import take_rows
from deeptalk_jax.rendering.visibility import (
    MIN_DOUBLED_AREA,
    Edges,
    crossing,
    doubled_area,
    outlines,
    silhouette,
    visible_faces,
)
from deeptalk_jax.types import Array

# Minimum difference in nearness between an outline and the surface beside it. Less means that both are one surface.
_STEP = 1e-3


def draw(
    screen: Float[Array, "v 2"],
    nearness: Float[Array, " v"],
    shade: Float[Array, " v"],
    faces: Int[np.ndarray, "f 3"],
    edges: Edges,
    *,
    size: int,
    background: float,
) -> Float[Array, "size size"]:
    """Draws a mesh. The picture is differentiable in `screen` and `shade`; use `jax.vmap` to draw several frames.

    Args:
        screen: column and row of each vertex in pixels; (0, 0) is the centre of the first pixel and rows go down.
        nearness: scaled inverse depth of each vertex in [0, 1], which is linear on the screen; larger is nearer.
        shade: grey value of each vertex.
        faces: vertex indices; only faces whose corners appear in counter-clockwise order are drawn.
        edges: edges of these faces, from `visibility.mesh_edges`.
        size: side of the picture in pixels.
        background: grey value of pixels without a face.

    Returns:
        The grey picture `[size, size]`.
    """
    nearness = jax.lax.stop_gradient(nearness)
    # All values of a vertex form one row of a table, because on TPUs gathers cost more than the arithmetic on rows.
    vertices = jnp.concatenate([screen, nearness[:, None], shade[:, None]], axis=1)
    still = jax.lax.stop_gradient(vertices)
    corners, ends = still[faces], still[edges.ends]
    face = visible_faces(corners[..., :3], size)
    cuts, inner = silhouette(corners[..., :2], edges)
    edge = outlines(ends[..., :3], cuts, size)

    # The backward pass keeps only the vertices and the indices of visible faces and edges, and recomputes the rest.
    @jax.checkpoint
    def colours(vertices):
        seen, depth = _interpolate(take_rows(vertices, faces), face, background)
        ends = take_rows(vertices, edges.ends)
        ends, ends_nearness = ends[..., :2], ends[..., 2]
        # `still[inner, 1::-1]` would gather single numbers, which on TPUs moves seven times the bytes of all the rest.
        beside = still[inner][:, :2]
        # Coordinates are (y, x) for outlines between pixels of a row, and (x, y) for those between pixels of a column.
        rows = _smooth_rows(seen, depth, ends[..., ::-1], ends_nearness, beside[:, ::-1], edge[0])
        columns = _smooth_rows(seen.T, depth.T, ends, ends_nearness, beside, edge[1])
        return seen + rows + columns.T

    return colours(vertices)


def _interpolate(
    corners: Float[Array, "f 3 4"], face: Int[Array, "r c"], background: float
) -> tuple[Float[Array, "r c"], Float[Array, "r c"]]:
    """Interpolates grey and nearness of every pixel.

    Args:
        corners: x, y, nearness and grey of the corners of every face.
        face: index of the face that each pixel shows, -1 for none.
        background: grey value of pixels without a face.

    Returns:
        Grey and nearness of every pixel; the nearness is -1 without a face.
    """
    column = jnp.arange(face.shape[0], dtype=corners.dtype)
    pixel = jnp.stack(jnp.broadcast_arrays(column[None, :], column[:, None]), axis=-1)
    seen = corners.reshape(len(corners), 12)[face].reshape(*face.shape, 3, 4)
    a, b, c = jnp.moveaxis(seen[..., :2], -2, 0)
    scale = 1.0 / jnp.maximum(doubled_area(seen[..., :2]), MIN_DOUBLED_AREA)
    first = jnp.clip(scale * doubled_area(jnp.stack([pixel, b, c], axis=-2)), 0.0, 1.0)
    second = jnp.clip(scale * doubled_area(jnp.stack([a, pixel, c], axis=-2)), 0.0, 1.0)
    weights = jnp.stack([first, second, jnp.maximum(1.0 - first - second, 0.0)], axis=-1)
    depth, grey = jnp.moveaxis(jnp.sum(weights[..., None] * seen[..., 2:], axis=-2), -1, 0)
    covered = face >= 0
    return jnp.where(covered, grey, background), jnp.where(covered, jax.lax.stop_gradient(depth), -1.0)


def _smooth_rows(
    seen: Float[Array, "s c"],
    depth: Float[Array, "s c"],
    ends: Float[Array, "e 2 2"],
    ends_nearness: Float[Array, "e 2"],
    inner: Float[Array, "e 2"],
    edge: Int[Array, "s c"],
) -> Float[Array, "s c"]:
    """Computes the change of the picture by outlines that pass between neighbouring pixels of a row.

    Args:
        seen: grey value of every pixel.
        depth: nearness of the visible surface at every pixel, -1 for the background.
        ends: both ends of every edge as (coordinate that numbers the rows, coordinate inside a row).
        ends_nearness: nearness of both ends of every edge.
        inner: a point on the side of every edge that its visible face covers, with the same coordinates.
        edge: index of the edge that passes between pixels c and c + 1, or -1.

    Returns:
        Value to add to every pixel.
    """
    place = jnp.arange(edge.shape[0], dtype=ends.dtype)
    table = jnp.concatenate([ends.reshape(len(ends), 4), ends_nearness, inner], axis=1)
    line, near, inner = jnp.split(table[edge], (4, 6), axis=-1)  # [s, c, 4], [s, c, 2], [s, c, 2]
    line = line.reshape(*edge.shape, 2, 2)
    across, share = crossing(line, jnp.broadcast_to(place[:, None], edge.shape))
    edge_depth = near[..., 0] + share * (near[..., 1] - near[..., 0])
    following, next_depth = jnp.roll(seen, -1, axis=1), jnp.roll(depth, -1, axis=1)
    covers_next = inner[..., 1] > crossing(line, inner[..., 0])[0]
    behind = jnp.where(covers_next, depth, next_depth)  # nearness at the pixel that the face does not cover
    passes = (edge >= 0) & (edge_depth > behind + _STEP)
    offset = across - place[None, :] - 0.5  # positive if the edge is inside the next pixel
    change = jnp.where(passes, following - seen, 0.0)
    return jnp.maximum(-offset, 0.0) * change - jnp.roll(jnp.maximum(offset, 0.0) * change, 1, axis=1)
