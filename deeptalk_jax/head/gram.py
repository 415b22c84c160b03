"""Exact squared vertex distances between two motions, without computing vertices (docs/method.md, section 3.1).

With shape, neck, eyes and global rotation at rest, a skinned vertex is p + w (R - I)(p - J). Here w is its jaw weight,
R the jaw rotation, p the shaped and pose-corrected vertex, and J the jaw joint. With e the expression and
q = [1, e, vec(R - I)], both p and J are linear in q, so every vertex is linear in the motion feature

    phi = [e, vec(R - I), vec(R - I) x q]          (50 + 9 + 9 * 60 = 599 numbers)

and any weighted sum of squared vertex distances is a quadratic form in the difference of two phi. The Gram matrix of
this form is computed once per head, in float64. A factor A of the matrix turns the distance into
||A (phi_1 - phi_2)||^2. Velocities are differences of vertices, so the same factor applies to them. For another
identity, write its shape into the template: `head.replace(template=shaped_vertices(head, zeros, shape))`.

In float32, the difference of two phi is formed before the product, so no quantity as large as the head cancels. The
remaining error is the rounding of R - I times the length of the jaw lever, at most two nanometres
(see `squared_distance`). Explicit float32 vertices lose up to seven times as much.
"""

import hashlib
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

from deeptalk_jax.head.lbs import rotation_offset
from deeptalk_jax.head.model import JAW, HeadModel
from deeptalk_jax.types import EXPRESSION_DIM, Array

# Points above and below each gap, names of `HeadModel.landmarks`.
GAPS = {
    "lips": (("upper_lip_seam", "lower_lip_seam"),),
    "lids": (("left_upper_lid", "left_lower_lid"), ("right_upper_lid", "right_lower_lid")),
}
_ROTATION_DIM = 9
_AFFINE_DIM = 1 + EXPRESSION_DIM + _ROTATION_DIM
_LINEAR_DIM = EXPRESSION_DIM + _ROTATION_DIM
FEATURE_DIM = _LINEAR_DIM + _ROTATION_DIM * _AFFINE_DIM
# Pivots smaller than this many machine epsilons of the largest pivot are rounding errors.
_RANK_TOLERANCE = 10.0
# Factors by a digest of everything that they depend on: a factorisation of all vertices takes seconds, and training and
# each evaluation need the same ones.
_KNOWN_FACTORS: dict[bytes, np.ndarray] = {}
_MAX_KNOWN_FACTORS = 64


def _outer_features(motion: Float[Array, "*b 53"]) -> Float[Array, "*b 600"]:
    """Returns [1, vec(R - I)] x q: a constant 1 followed by the 599 entries of phi, for every frame."""
    leading = motion.shape[:-1]
    rotation = rotation_offset(motion[..., EXPRESSION_DIM:]).reshape(*leading, _ROTATION_DIM)
    one = jnp.ones((*leading, 1), motion.dtype)
    rows = jnp.concatenate([one, rotation], axis=-1)
    affine = jnp.concatenate([one, motion[..., :EXPRESSION_DIM], rotation], axis=-1)
    # An einsum rather than a broadcast product: the gradient is then two einsums, which saves a third of the CPU time.
    outer = jnp.einsum("...i,...j->...ij", rows, affine, precision=jax.lax.Precision.HIGHEST)
    return outer.reshape(*leading, 1 + FEATURE_DIM)


def _vertex_maps(head: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Returns the linear maps from q to p and from q to w (p - J), each `[v, 3, 60]` float64."""
    skinning = np.asarray(head.skinning_weights, np.float64)
    template = np.asarray(head.template, np.float64)
    expression = np.asarray(head.expression_directions, np.float64)
    first = _ROTATION_DIM * (JAW - 1)
    correctives = np.asarray(head.pose_directions, np.float64)[first : first + _ROTATION_DIM]  # [9, v, 3]
    affine = np.concatenate([template[:, :, None], expression, correctives.transpose(1, 2, 0)], axis=-1)
    joint = np.tensordot(np.asarray(head.joint_regressor, np.float64)[JAW], affine, axes=1)
    joint[:, 1 + EXPRESSION_DIM :] = 0.0  # Joints are regressed before pose correctives are added.
    # Skinning scales p by the sum of the vertex's weights, which is not exactly 1 in float32.
    return skinning.sum(axis=1)[:, None, None] * affine, skinning[:, JAW, None, None] * (affine - joint)


def _coordinate_maps(affine: np.ndarray, lever: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns J such that |J (phi_1 - phi_2)|^2 is the weighted sum of squared vertex distances.

    Coordinate `row` of a vertex depends on the linear part of phi and on the block of products that belongs to row
    `row` of R - I. The maps of all vertices are rows of one matrix, which is replaced by the triangle of its QR
    factorisation. Unlike the product of the matrix with its transpose, the factorisation loses no digits.

    Args:
        affine: `[v, 3, 60]` map from q to p.
        lever: `[v, 3, 60]` map from q to w (p - J).
        weights: `[v]` non-negative weights.

    Returns:
        `[m, 599]` with m at most 3 * 357.
    """
    linear = affine[:, :, 1:].reshape(len(affine), 3 * _LINEAR_DIM)
    block_dim = 3 * _AFFINE_DIM  # indexed by the column of R - I, then by the entry of q
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
    relative_to: np.ndarray | None = None,
    dtype: np.dtype | type = np.float32,
) -> Float[np.ndarray, "r 599"]:
    """Computes the factor A such that `||A (phi_1 - phi_2)||^2` is the mean squared coordinate error, m^2.

    The mean squared coordinate error is sum_v w_v ||v_1 - v_2||^2 / (3 sum_v w_v) over the selected vertices v with
    weights w_v. With `relative_to`, the vector from a second vertex to each selected one takes the place of its
    position: the error of the gap between two lips or lids, which does not depend on where they meet.

    Args:
        head: the head model.
        vertices: indices of the selected vertices; None selects all.
        weights: one non-negative weight per selected vertex; None weights them equally.
        relative_to: one vertex index per selected vertex; None takes positions.
        dtype: type of the factor. JAX uses float64 only under `jax.enable_x64`.

    Returns:
        `[r, 599]`, where r is the numerical rank of the Gram matrix: at most 599 and at most 3 per selected vertex. The
        array is read-only, because calls with equal arguments share it.

    Raises:
        ValueError: No vertex is selected, an index is out of range, the number of weights differs from the number of
            vertices, or the weights are negative, not finite, or all zero.
    """
    vertices = np.arange(head.num_vertices) if vertices is None else np.asarray(vertices)
    weights = np.ones(len(vertices)) if weights is None else np.asarray(weights, np.float64)
    _check_weighting(head, vertices, weights)
    origins = np.zeros(0, int) if relative_to is None else np.asarray(relative_to)
    if relative_to is not None:
        _check_weighting(head, origins, weights)
    key = _digest(head, vertices, weights, origins, np.dtype(dtype))
    if key not in _KNOWN_FACTORS:
        if len(_KNOWN_FACTORS) >= _MAX_KNOWN_FACTORS:
            _KNOWN_FACTORS.clear()
        factor = _KNOWN_FACTORS[key] = _distance_factor(head, vertices, weights, origins, dtype)
        factor.setflags(write=False)
    return _KNOWN_FACTORS[key]


def _digest(
    head: HeadModel, vertices: np.ndarray, weights: np.ndarray, origins: np.ndarray, dtype: np.dtype
) -> bytes:
    """Returns a digest of the arrays that a factor depends on."""
    digest = hashlib.blake2b(dtype.str.encode())
    for array in (
        head.template,
        head.expression_directions,
        head.pose_directions,
        head.joint_regressor,
        head.skinning_weights,
        vertices,
        weights,
        origins,
    ):
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array)
    return digest.digest()


def _distance_factor(
    head: HeadModel,
    vertices: np.ndarray,
    weights: np.ndarray,
    origins: np.ndarray,
    dtype: np.dtype | type,
) -> np.ndarray:
    maps = [part[vertices] - (part[origins] if len(origins) else 0.0) for part in _vertex_maps(head)]
    maps = _coordinate_maps(*maps, weights / (3.0 * weights.sum()))
    # Columns differ by orders of magnitude (metres per radian, metres per unit of expression). Scaling them to length 1
    # keeps the relative precision of each column and makes the rank independent of units.
    scale = np.linalg.norm(maps, axis=0)
    triangle, order = scipy.linalg.qr(maps / np.where(scale > 0.0, scale, 1.0), mode="r", pivoting=True)
    pivots = np.abs(np.diag(triangle))
    rank = np.count_nonzero(pivots > _RANK_TOLERANCE * np.finfo(dtype).eps * max(pivots[0], 1.0))
    factor = np.zeros((rank, FEATURE_DIM))
    factor[:, order] = triangle[:rank]
    return (factor * scale).astype(dtype)


def _check_weighting(head: HeadModel, vertices: np.ndarray, weights: np.ndarray) -> None:
    if not len(vertices) or weights.shape != vertices.shape:
        raise ValueError(
            f"{len(vertices)} vertices with weights of shape {weights.shape}; "
            "expected at least one vertex and one weight per vertex"
        )
    if vertices.min() < 0 or vertices.max() >= head.num_vertices:
        raise ValueError(
            f"vertex indices {vertices.min()}..{vertices.max()}; the head has {head.num_vertices} vertices"
        )
    if not (np.isfinite(weights).all() and weights.min() >= 0.0 and weights.sum() > 0.0):
        raise ValueError(
            "weights must be finite, not negative and not all zero; "
            f"found values in [{weights.min()}, {weights.max()}]"
        )


def head_regions(head: HeadModel) -> dict[str, np.ndarray]:
    """Returns the vertex indices of every region that is not empty.

    The regions are the head's masks, "all" (every vertex) and "rest" (the vertices outside all masks).
    """
    everything = np.arange(head.num_vertices)
    masked = np.concatenate([(), *head.masks.values()])
    regions = {"all": everything, **head.masks, "rest": np.setdiff1d(everything, masked)}
    return {name: vertices for name, vertices in regions.items() if len(vertices)}


def gap_factor(
    head: HeadModel, gap: str, *, dtype: np.dtype | type = np.float32
) -> Float[np.ndarray, "r 599"]:
    """Computes `distance_factor` of the vector between two lips or two lids, see `GAPS`.

    Args:
        head: the head model.
        gap: key of `GAPS`.
        dtype: type of the factor, see `distance_factor`.

    Raises:
        ValueError: The head does not have the named points.
    """
    pairs = GAPS[gap]
    missing = [name for pair in pairs for name in pair if name not in head.landmarks]
    if missing:
        raise ValueError(f"head {head.name!r} has no point {missing[0]!r}, which the gap of the {gap} needs")
    upper, lower = (np.array([head.landmarks[name] for name in side]) for side in zip(*pairs, strict=True))
    return distance_factor(head, upper, relative_to=lower, dtype=dtype)


def region_factors(
    head: HeadModel, names: Iterable[str] | None = None, *, dtype: np.dtype | type = np.float32
) -> dict[str, Float[np.ndarray, "r 599"]]:
    """Computes `distance_factor` for several regions.

    Args:
        head: the head model.
        names: names of regions in `head_regions`; None takes all of them.
        dtype: type of the factors, see `distance_factor`.

    Returns:
        Region name -> factor `[r, 599]`.

    Raises:
        ValueError: The head does not have a named region.
    """
    regions = head_regions(head)
    names = list(regions if names is None else names)
    missing = [name for name in names if name not in regions]
    if missing:
        raise ValueError(f"head {head.name!r} has no region {missing[0]!r}; choose from {', '.join(regions)}")
    return {name: distance_factor(head, regions[name], dtype=dtype) for name in names}


def _squared_norm(factor: Array, difference: Array) -> Array:
    """Computes `||A d||^2` for differences d of `_outer_features`; the first entry of d is always zero."""
    factor = jnp.pad(factor, ((0, 0), (1, 0)))
    # Full float32 precision, because the loss weights these squares by 1e6.
    projected = jnp.einsum("rf,...f->...r", factor, difference, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(projected), axis=-1)


def squared_distance(
    factor: Float[Array, "r 599"], motion: Float[Array, "*b 53"], target: Float[Array, "*b 53"]
) -> Float[Array, "*b"]:
    """Computes the mean squared coordinate error of every frame, m^2.

    In float32 the error of the square root is at most 2e-9 m plus a relative 1e-6. A loss of 1e6 times this value is
    therefore exact to a relative 4e-5 at a distance of 0.1 mm and 3e-6 at 1 cm. Gradients are exact to the same
    fractions of their largest entry.

    Args:
        factor: result of `distance_factor`.
        motion: `[..., 53]` motion frames: expression and jaw axis-angle in radians.
        target: `[..., 53]` motion frames to compare with.
    """
    return _squared_norm(factor, _outer_features(motion) - _outer_features(target))


def squared_velocity_distance(
    factor: Float[Array, "r 599"], motion: Float[Array, "*b t 53"], target: Float[Array, "*b t 53"]
) -> Float[Array, "*b t-1"]:
    """Computes the mean squared coordinate error of the displacement from each frame to the next, m^2 per frame^2.

    Arguments are those of `squared_distance`.
    """
    return _squared_norm(factor, jnp.diff(_outer_features(motion) - _outer_features(target), axis=-2))


def squared_acceleration_distance(
    factor: Float[Array, "r 599"], motion: Float[Array, "*b t 53"], target: Float[Array, "*b t 53"]
) -> Float[Array, "*b t-2"]:
    """Computes the mean squared coordinate error of the second differences over time, m^2 per frame^4.

    Arguments are those of `squared_distance`.
    """
    return _squared_norm(factor, jnp.diff(_outer_features(motion) - _outer_features(target), n=2, axis=-2))
