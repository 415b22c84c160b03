"""Head models that keep only some vertices of a head.

A loss or picture that needs few vertices then costs a fraction of the arithmetic of the whole head.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from deeptalk_jax.head.model import JOINT_NAMES, HeadModel, HeadSurface
from deeptalk_jax.types import Array


def head_subset(head: HeadModel, vertices: Int[np.ndarray, " n"]) -> HeadModel:
    """Returns a head with some of the vertices; they move exactly as in the whole head.

    The joints of a head are regressed from all of its vertices, which the subset does not have. Joints are linear in
    the coefficients, so the subset stores the five joints as additional vertices and regresses each joint from the
    vertex that stores it.

    Args:
        head: the whole head.
        vertices: sorted indices of the n vertices to keep.

    Returns:
        A head with n + 5 vertices: the kept vertices in their order, then the five joints, which belong to no face.

    Raises:
        ValueError: The indices are empty, not sorted, repeated, or out of range.
    """
    vertices = np.asarray(vertices)
    if len(vertices) == 0 or (np.diff(vertices) <= 0).any() or not 0 <= vertices[0] <= vertices[-1]:
        raise ValueError(f"vertices {vertices} are not sorted; expected distinct indices in ascending order")
    if vertices[-1] >= head.num_vertices:
        raise ValueError(
            f"vertex index {vertices[-1]} is out of range; the head has {head.num_vertices} vertices"
        )
    num_joints = len(JOINT_NAMES)

    def with_joints(values: Array, joint_values: Array) -> Array:
        return jnp.concatenate([values[vertices], joint_values])

    def regressed(values: Array) -> Array:
        return jnp.einsum("jv,v...->j...", head.joint_regressor, values, precision="highest")

    pose_directions = head.pose_directions[:, vertices]
    weights = head.skinning_weights
    return head.replace(
        template=with_joints(head.template, regressed(head.template)),
        expression_directions=with_joints(head.expression_directions, regressed(head.expression_directions)),
        shape_directions=with_joints(head.shape_directions, regressed(head.shape_directions)),
        pose_directions=jnp.pad(pose_directions, ((0, 0), (0, num_joints), (0, 0))),
        joint_regressor=jnp.pad(jnp.eye(num_joints), ((0, 0), (len(vertices), 0))),
        skinning_weights=with_joints(weights, jnp.zeros((num_joints, weights.shape[1]))),
        surface=_surface(head.surface, vertices, num_joints),
        name=f"part of {head.name}",
    )


def _surface(surface: HeadSurface, vertices: np.ndarray, num_joints: int) -> HeadSurface:
    """Returns the part of a surface whose faces and points use only the given vertices, renumbered."""
    number = np.full(len(surface.materials), -1, np.int32)
    number[vertices] = np.arange(len(vertices), dtype=np.int32)
    faces = number[surface.faces]

    def inside(indices):
        return number[indices][number[indices] >= 0]

    return HeadSurface(
        faces=faces[(faces >= 0).all(axis=1)],
        materials=np.pad(surface.materials[vertices], (0, num_joints)),
        albedo=np.pad(surface.albedo[vertices], ((0, num_joints), (0, 0))),
        masks={name: inside(indices) for name, indices in surface.masks.items()},
        landmarks={
            name: int(number[index]) for name, index in surface.landmarks.items() if number[index] >= 0
        },
        mask_source=surface.mask_source,
    )
