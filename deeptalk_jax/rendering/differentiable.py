"""A differentiable picture of a small mesh: z-buffer, Gouraud shading, outlines smoothed over one pixel.

Inside the surface a pixel is the barycentric mean of its face's corners. Where an outline passes between two pixels,
the one that it cuts takes the other's colour by the share that is covered, so the picture is continuous in the motion
of the outline and has its gradient (analytic antialiasing: Laine et al., SIGGRAPH Asia 2020). Departure: outlines are
searched among all edges instead of those of the visible face, since faces next to an outline of a rounded lip are seen
edge-on and much thinner than a pixel.
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

# An outline must be so much nearer than what is seen beside it; less is the same surface.
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
    """Draws a mesh; differentiable in `screen` and `shade`. Map it over frames with `jax.vmap`.

    Args:
        screen: column and row of the vertices in pixels; the centre of the first pixel is (0, 0), rows go down.
        nearness: in [0, 1], linear on the screen (inverse depth), larger is nearer.
        shade: grey of the vertices.
        faces: vertex indices, counter-clockwise where they face the camera; the others are not drawn.
        edges: of these faces, `visibility.mesh_edges`.
        size: side of the picture in pixels.
        background: grey where nothing is.
    """
    nearness = jax.lax.stop_gradient(nearness)
    # All of a vertex is one row of a table: to a TPU gathers cost more than what is done with their rows.
    vertices = jnp.concatenate([screen, nearness[:, None], shade[:, None]], axis=1)
    still = jax.lax.stop_gradient(vertices)
    corners, ends = still[faces], still[edges.ends]
    face = visible_faces(corners[..., :3], size)
    cuts, inner = silhouette(corners[..., :2], edges)
    edge = outlines(ends[..., :3], cuts, size)

    # What the backward pass needs besides the vertices are the indices of the winners: the rest is computed again.
    @jax.checkpoint
    def colours(vertices):
        seen, depth = _interpolate(take_rows(vertices, faces), face, background)
        ends = take_rows(vertices, edges.ends)
        ends, ends_nearness = ends[..., :2], ends[..., 2]
        # Not `still[inner, 1::-1]`, which gathers number by number: on a TPU seven times the bytes of all the rest.
        beside = still[inner][:, :2]
        # Rows are walked along y, columns along x.
        rows = _smooth_rows(seen, depth, ends[..., ::-1], ends_nearness, beside[:, ::-1], edge[0])
        columns = _smooth_rows(seen.T, depth.T, ends, ends_nearness, beside, edge[1])
        return seen + rows + columns.T

    return colours(vertices)


def _interpolate(
    corners: Float[Array, "f 3 4"], face: Int[Array, "r c"], background: float
) -> tuple[Float[Array, "r c"], Float[Array, "r c"]]:
    """Grey and nearness (-1: nothing) of every pixel from its face's corners (x, y, nearness, grey)."""
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
    """What outlines between neighbours of a row add to the picture.

    Args:
        seen: grey.
        depth: nearness of what is seen, -1 for the background.
        ends: of the edges: coordinate along (that of the rows), coordinate across.
        ends_nearness: of the same ends.
        inner: a point on the side that the edge's face covers.
        edge: which passes between c and c + 1, or -1.
    """
    place = jnp.arange(edge.shape[0], dtype=ends.dtype)
    table = jnp.concatenate([ends.reshape(len(ends), 4), ends_nearness, inner], axis=1)
    line, near, inner = jnp.split(table[edge], (4, 6), axis=-1)  # [s, c, 4], [s, c, 2], [s, c, 2]
    line = line.reshape(*edge.shape, 2, 2)
    across, share = crossing(line, jnp.broadcast_to(place[:, None], edge.shape))
    edge_depth = near[..., 0] + share * (near[..., 1] - near[..., 0])
    following, next_depth = jnp.roll(seen, -1, axis=1), jnp.roll(depth, -1, axis=1)
    covers_next = inner[..., 1] > crossing(line, inner[..., 0])[0]
    behind = jnp.where(covers_next, depth, next_depth)  # of the pixel that the face does not cover
    passes = (edge >= 0) & (edge_depth > behind + _STEP)
    offset = across - place[None, :] - 0.5  # above 0 the edge lies in the next pixel
    change = jnp.where(passes, following - seen, 0.0)
    return jnp.maximum(-offset, 0.0) * change - jnp.roll(jnp.maximum(offset, 0.0) * change, 1, axis=1)
