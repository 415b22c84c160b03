"""Exact squared vertex distances between motions, without computing vertices (SPEC section 3).

With shape, neck, eyes and global rotation at rest, a skinned vertex is p + w (R - I)(p - J): w its jaw weight, R
the jaw rotation, p the shaped and pose-corrected vertex and J the jaw joint. With q = [1, e, vec(R - I)], p and J
are linear in q, so every vertex is linear in the motion feature

    phi = [e, vec(R - I), vec(R - I) x q]          (50 + 9 + 9 * 60 = 599 numbers)

and any weighted sum of squared vertex distances is a quadratic form in a difference of two phi. Its Gram matrix is
computed once for a head in float64; a factor A of it turns the distance into ||A (phi_1 - phi_2)||^2. Velocities
are differences of vertices, so the same factor serves them. For another identity, bake its shape into the
template: `head.replace(template=shaped_vertices(head, zeros, shape))`.

In float32 the difference of two phi is formed before the product, so nothing as large as the head cancels: what
remains is the rounding of R - I at the length of a jaw lever, up to two nanometres (`squared_distance`). Explicit
float32 vertices lose up to seven times as much.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

from deeptalk_jax.head.lbs import rotation_offset
from deeptalk_jax.head.model import JAW, HeadModel
from deeptalk_jax.types import EXPRESSION_DIM, Array

_ROTATION_DIM = 9
_AFFINE_DIM = 1 + EXPRESSION_DIM + _ROTATION_DIM
_LINEAR_DIM = EXPRESSION_DIM + _ROTATION_DIM
FEATURE_DIM = _LINEAR_DIM + _ROTATION_DIM * _AFFINE_DIM
# Pivots below this many roundings of the largest are rounding themselves.
_RANK_TOLERANCE = 10.0


def _outer_features(motion: Float[Array, "*b 53"]) -> Float[Array, "*b 600"]:
    """[1, vec(R - I)] x q: a constant one, then phi."""
    leading = motion.shape[:-1]
    rotation = rotation_offset(motion[..., EXPRESSION_DIM:]).reshape(*leading, _ROTATION_DIM)
    one = jnp.ones((*leading, 1), motion.dtype)
    rows = jnp.concatenate([one, rotation], axis=-1)
    affine = jnp.concatenate([one, motion[..., :EXPRESSION_DIM], rotation], axis=-1)
    # As a contraction, not a product: its gradient is two contractions too, which saves a third of the time on a CPU.
    outer = jnp.einsum("...i,...j->...ij", rows, affine, precision=jax.lax.Precision.HIGHEST)
    return outer.reshape(*leading, 1 + FEATURE_DIM)


def motion_features(motion: Float[Array, "*b 53"]) -> Float[Array, "*b 599"]:
    """The feature phi of every frame; leading axes are kept."""
    return _outer_features(motion)[..., 1:]


def _vertex_maps(head: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Linear maps of q to p and to w (p - J) of every vertex, `[v, 3, 60]` float64 each."""
    skinning = np.asarray(head.skinning_weights, np.float64)
    template = np.asarray(head.template, np.float64)
    expression = np.asarray(head.expression_directions, np.float64)
    first = _ROTATION_DIM * (JAW - 1)
    correctives = np.asarray(head.pose_directions, np.float64)[first : first + _ROTATION_DIM]  # [9, v, 3]
    affine = np.concatenate([template[:, :, None], expression, correctives.transpose(1, 2, 0)], axis=-1)
    joint = np.tensordot(np.asarray(head.joint_regressor, np.float64)[JAW], affine, axes=1)
    joint[:, 1 + EXPRESSION_DIM :] = 0.0  # joints are regressed before the pose correctives
    # Blending scales p by the sum of a vertex's weights, in float32 not quite one.
    return skinning.sum(axis=1)[:, None, None] * affine, skinning[:, JAW, None, None] * (affine - joint)


def _coordinate_maps(affine: np.ndarray, lever: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`[m, 599]` J such that |J (phi_1 - phi_2)|^2 is the weighted sum of squared distances; m at most 3 * 357.

    Coordinate `row` of a vertex takes the linear part of phi, and of its products the block that belongs to row
    `row` of R - I. The numbers of all vertices stand in one matrix, of which only the triangle of its QR
    factorisation counts: unlike products of it, that loses no digits.
    """
    linear = affine[:, :, 1:].reshape(len(affine), 3 * _LINEAR_DIM)
    block_dim = 3 * _AFFINE_DIM  # axes: column of R - I, entry of q
    maps = np.concatenate([linear, lever.reshape(len(lever), block_dim)], axis=1)
    triangle = np.linalg.qr(np.sqrt(weights)[:, None] * maps, mode="r")
    linear, lever = np.split(triangle, [3 * _LINEAR_DIM], axis=1)
    coordinates = np.zeros((3, len(triangle), FEATURE_DIM))
    for row in range(3):
        coordinates[row, :, :_LINEAR_DIM] = linear[:, row * _LINEAR_DIM : (row + 1) * _LINEAR_DIM]
        start = _LINEAR_DIM + row * block_dim
        coordinates[row, :, start : start + block_dim] = lever
    return coordinates.reshape(3 * len(triangle), FEATURE_DIM)


def distance_factor(
    head: HeadModel,
    vertices: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    *,
    dtype: np.dtype | type = np.float32,
) -> Float[np.ndarray, "r 599"]:
    """Factor A such that `||A (phi_1 - phi_2)||^2` is the mean squared coordinate error, m^2.

    That is sum_v w_v ||v_1 - v_2||^2 / (3 sum_v w_v), with the weights w_v of the vertices v that count.

    Args:
        head: any head model.
        vertices: indices of the vertices that count; all by default.
        weights: one non-negative weight for each of them; equal by default.
        dtype: of the factor; float64 takes effect under `jax.enable_x64` only.

    Returns:
        `[r, 599]`, r the numerical rank of the Gram matrix; at most 599, and 3 for each vertex that counts.

    Raises:
        ValueError: no vertex, an index that is no vertex, a number of weights other than of vertices, or weights
            that are negative, not finite, or all zero.
    """
    vertices = np.arange(head.num_vertices) if vertices is None else np.asarray(vertices)
    weights = np.ones(len(vertices)) if weights is None else np.asarray(weights, np.float64)
    _check_weighting(head, vertices, weights)
    affine, lever = _vertex_maps(head)
    maps = _coordinate_maps(affine[vertices], lever[vertices], weights / (3.0 * weights.sum()))
    # Columns differ by orders of magnitude (metres per radian, per unit of expression). Scaled to length one, each
    # is exact to its own rounding, and the rank does not depend on units.
    scale = np.linalg.norm(maps, axis=0)
    triangle, order = scipy.linalg.qr(maps / np.where(scale > 0.0, scale, 1.0), mode="r", pivoting=True)
    pivots = np.abs(np.diag(triangle))
    rank = np.count_nonzero(pivots > _RANK_TOLERANCE * np.finfo(dtype).eps * max(pivots[0], 1.0))
    factor = np.zeros((rank, FEATURE_DIM))
    factor[:, order] = triangle[:rank]
    return (factor * scale).astype(dtype)


def _check_weighting(head: HeadModel, vertices: np.ndarray, weights: np.ndarray) -> None:
    if not len(vertices) or weights.shape != vertices.shape:
        raise ValueError(f"{len(vertices)} vertices with weights of shape {weights.shape}")
    if vertices.min() < 0 or vertices.max() >= head.num_vertices:
        raise ValueError(f"vertices {vertices.min()}..{vertices.max()} of a head with {head.num_vertices}")
    if not (np.isfinite(weights).all() and weights.min() >= 0.0 and weights.sum() > 0.0):
        raise ValueError(
            f"weights must be finite, not negative and not all zero; they lie in "
            f"[{weights.min()}, {weights.max()}]"
        )


def head_regions(head: HeadModel) -> dict[str, np.ndarray]:
    """Vertex indices of the head's masks, of "all", and of "rest", outside every mask; no empty region."""
    everything = np.arange(head.num_vertices)
    masked = np.concatenate([(), *head.masks.values()])
    regions = {"all": everything, **head.masks, "rest": np.setdiff1d(everything, masked)}
    return {name: vertices for name, vertices in regions.items() if len(vertices)}


def region_factors(
    head: HeadModel, names: Iterable[str] | None = None, *, dtype: np.dtype | type = np.float32
) -> dict[str, Float[np.ndarray, "r 599"]]:
    """`distance_factor` of the named regions, by default of all in `head_regions`.

    Raises:
        ValueError: a region that the head does not have.
    """
    regions = head_regions(head)
    names = list(regions if names is None else names)
    missing = [name for name in names if name not in regions]
    if missing:
        raise ValueError(f"head {head.name!r} has no region {missing[0]!r}; it has {', '.join(regions)}")
    return {name: distance_factor(head, regions[name], dtype=dtype) for name in names}


def _squared_norm(factor: Array, difference: Array) -> Array:
    """`||A d||^2` of differences of `_outer_features`, whose first entry is zero."""
    factor = jnp.pad(factor, ((0, 0), (1, 0)))
    # Full float32 products: the loss weighs these squares by 1e6.
    projected = jnp.einsum("rf,...f->...r", factor, difference, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(projected), axis=-1)


def squared_distance(
    factor: Float[Array, "r 599"], motion: Float[Array, "*b 53"], target: Float[Array, "*b 53"]
) -> Float[Array, "*b"]:
    """Mean squared coordinate error of every frame, m^2; `factor` is from `distance_factor`.

    In float32 its root is off by at most 2e-9 m and 1e-6 of itself, so a loss of 1e6 times this value by 4e-5 of
    itself at 0.1 mm and by 3e-6 at 1 cm; gradients by as much of their largest entry.
    """
    return _squared_norm(factor, _outer_features(motion) - _outer_features(target))


def squared_velocity_distance(
    factor: Float[Array, "r 599"], motion: Float[Array, "*b t 53"], target: Float[Array, "*b t 53"]
) -> Float[Array, "*b t-1"]:
    """Mean squared coordinate error of the displacement from each frame to the next, m^2 per frame^2."""
    difference = _outer_features(motion) - _outer_features(target)
    return _squared_norm(factor, difference[..., 1:, :] - difference[..., :-1, :])
