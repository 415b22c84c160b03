"""Exact squared vertex distances between motions, without computing vertices (SPEC section 3).

With shape, neck, eyes and global rotation at rest, a skinned vertex is p + w (R - I)(p - J): w its jaw weight, R
the jaw rotation, p the shaped and pose-corrected vertex and J the jaw joint. With q = [1, e, vec(R - I)], p and J
are linear in q, so every vertex is linear in the motion feature

    phi = [e, vec(R - I), vec(R - I) x q]          (50 + 9 + 9 * 60 = 599 numbers)

and any weighted sum of squared vertex distances is a quadratic form in a difference of two phi. Its Gram matrix is
computed once for a head in float64; a factor A of it turns the distance into ||A (phi_1 - phi_2)||^2.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deeptalk_jax.head.lbs import rotation_matrix
from deeptalk_jax.head.model import JOINT_NAMES, HeadModel
from deeptalk_jax.types import EXPRESSION_DIM, Array

_JAW = JOINT_NAMES.index("jaw")
_ROTATION_DIM = 9
_AFFINE_DIM = 1 + EXPRESSION_DIM + _ROTATION_DIM
FEATURE_DIM = EXPRESSION_DIM + _ROTATION_DIM + _ROTATION_DIM * _AFFINE_DIM
# Eigenvalues of the Gram matrix below this share of the largest are rounding.
_RANK_TOLERANCE = 1e-13


def motion_features(motion: Float[Array, "*b 53"]) -> Float[Array, "*b 599"]:
    """The feature phi of every frame; leading axes are kept."""
    expression = motion[..., :EXPRESSION_DIM]
    rotation = rotation_matrix(motion[..., EXPRESSION_DIM:])
    rotation = rotation - jnp.broadcast_to(jnp.eye(3, dtype=motion.dtype), rotation.shape)
    leading = motion.shape[:-1]
    rotation = rotation.reshape(*leading, _ROTATION_DIM)
    affine = jnp.concatenate([jnp.ones((*leading, 1), motion.dtype), expression, rotation], axis=-1)
    products = rotation[..., :, None] * affine[..., None, :]
    products = products.reshape(*leading, _ROTATION_DIM * _AFFINE_DIM)
    return jnp.concatenate([expression, rotation, products], axis=-1)


def vertex_jacobian(head: HeadModel, vertices: np.ndarray) -> np.ndarray:
    """`[n, 3, 599]` float64: the linear map from phi to the positions of n chosen vertices, less a constant."""
    template = np.asarray(head.template, np.float64)
    expression = np.asarray(head.expression_directions, np.float64)
    first = _ROTATION_DIM * (_JAW - 1)
    correctives = np.asarray(head.pose_directions, np.float64)[first : first + _ROTATION_DIM]  # [9, v, 3]
    correctives = correctives.transpose(1, 2, 0)
    affine = np.concatenate(
        [template[:, :, None], expression, correctives], axis=-1
    )  # [v, 3, 60]: p = affine q
    regressor = np.asarray(head.joint_regressor, np.float64)[_JAW]
    joint = np.einsum("v,vcm->cm", regressor, affine)
    joint[:, 1 + EXPRESSION_DIM :] = 0.0  # joints are regressed before the pose correctives
    lever = np.asarray(head.skinning_weights, np.float64)[vertices, _JAW, None, None] * (
        affine[vertices] - joint
    )

    jacobian = np.zeros((len(vertices), 3, FEATURE_DIM))
    linear_dim = EXPRESSION_DIM + _ROTATION_DIM
    jacobian[:, :, :linear_dim] = affine[vertices, :, 1:]
    bilinear = jacobian[:, :, linear_dim:].reshape(len(vertices), 3, 3, 3, _AFFINE_DIM)
    for row in range(3):  # entry (row, column) of R - I moves coordinate `row` by lever[column]
        bilinear[:, row, row] = lever
    jacobian[:, :, linear_dim:] = bilinear.reshape(len(vertices), 3, -1)
    return jacobian


def distance_factor(
    head: HeadModel, vertices: np.ndarray | None = None, weights: np.ndarray | None = None
) -> Float[Array, "r 599"]:
    """Factor A such that `||A (phi_1 - phi_2)||^2` is the mean squared coordinate error, m^2.

    Args:
        head: any head model.
        vertices: indices of the vertices that count; all by default.
        weights: one non-negative weight for each of them; equal by default.

    Returns:
        `[r, 599]` float32, r the numerical rank of the Gram matrix.

    Raises:
        ValueError: no vertex, or a number of weights other than of vertices.
    """
    vertices = np.arange(head.num_vertices) if vertices is None else np.asarray(vertices)
    weights = np.ones(len(vertices)) if weights is None else np.asarray(weights, np.float64)
    if not len(vertices) or weights.shape != vertices.shape:
        raise ValueError(f"{len(vertices)} vertices with weights of shape {weights.shape}")
    gram = np.zeros((FEATURE_DIM, FEATURE_DIM))
    for part in np.array_split(np.arange(len(vertices)), -(-len(vertices) // 1024)):
        jacobian = vertex_jacobian(head, vertices[part]) * np.sqrt(weights[part])[:, None, None]
        jacobian = jacobian.reshape(-1, FEATURE_DIM)
        gram += jacobian.T @ jacobian
    eigenvalues, eigenvectors = np.linalg.eigh(gram / (3.0 * weights.sum()))
    keep = eigenvalues > _RANK_TOLERANCE * eigenvalues[-1]
    factor = np.sqrt(eigenvalues[keep])[:, None] * eigenvectors[:, keep].T
    return jnp.asarray(factor.astype(np.float32))


def squared_distance(
    factor: Float[Array, "r 599"], motion: Float[Array, "*b 53"], target: Float[Array, "*b 53"]
) -> Float[Array, "*b"]:
    """Mean squared coordinate error of every frame, m^2; `factor` is from `distance_factor`."""
    difference = motion_features(motion) - motion_features(target)
    # Full float32 products: the loss weighs these squares by 1e6.
    projected = jnp.einsum("rf,...f->...r", factor, difference, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(jnp.square(projected), axis=-1)
