"""Linear blend skinning in the convention of FLAME and smplx (Li et al., SIGGRAPH Asia 2017).

Joints are regressed from the shaped mesh, which includes the expression. Pose correctives are linear in R - I of every
joint except the root. Departures from smplx: any number of leading axes is accepted, and all terms are defined and
differentiable at zero pose.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.head.model import JAW, HeadModel
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM, Array

# smplx adds this to every entry of an axis-angle vector before taking the norm, so that the angle is never zero.
_AXIS_ANGLE_OFFSET = 1e-8

# Vertices need micrometre accuracy. The bfloat16 passes that TPUs use by default would lose half a millimetre.
_PRECISION = jax.lax.Precision.HIGHEST


def _einsum(equation: str, *operands: Array) -> Array:
    return jnp.einsum(equation, *operands, precision=_PRECISION)


def _identity(like: Array) -> Array:
    return jnp.broadcast_to(jnp.eye(3, dtype=like.dtype), like.shape)


def rotation_offset(axis_angle: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Computes R - I by Rodrigues' formula, with the angle computed as in smplx.

    Subtracting the identity afterwards would lose the digits of small rotations.

    Args:
        axis_angle: `[..., 3]` axis times angle, radians.

    Returns:
        `[..., 3, 3]` rotation matrices minus the identity. The derivative at zero is exact: [e_i]_x.
    """
    offset = axis_angle + _AXIS_ANGLE_OFFSET
    # The norm is zero only for a vector of exactly -1e-8; the floor keeps the square root differentiable there.
    angle = jnp.sqrt(jnp.maximum(jnp.sum(offset * offset, axis=-1), 1e-24))[..., None, None]
    x, y, z = jnp.moveaxis(axis_angle, -1, 0)
    zero = jnp.zeros_like(x)
    cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    cross = cross.reshape(*axis_angle.shape[:-1], 3, 3)  # [..., 3, 3]: cross @ u = axis_angle x u
    sine = jnp.sin(angle) / angle
    half_sine = jnp.sin(0.5 * angle) / angle  # 1 - cos = 2 sin^2(angle / 2), which does not cancel
    return sine * cross + 2.0 * half_sine**2 * _einsum("...ij,...jk->...ik", cross, cross)


def rotation_matrix(axis_angle: Float[Array, "*b 3"]) -> Float[Array, "*b 3 3"]:
    """Computes rotation matrices `[..., 3, 3]` from axis-angle vectors `[..., 3]` in radians; see `rotation_offset`."""
    offset = rotation_offset(axis_angle)
    return _identity(offset) + offset


def _check_last_axis(name: str, array: Array, expected: int) -> None:
    if array.ndim < 1 or array.shape[-1] != expected:
        raise ValueError(f"{name} has shape {array.shape}; its last axis must be {expected}")


def shaped_vertices(
    head: HeadModel, expression: Float[Array, "*b 50"], shape: Float[Array, "*b s"] | None = None
) -> Float[Array, "*b v 3"]:
    """Adds expression and identity offsets to the neutral vertices, before any rotation.

    Args:
        head: the head model with v vertices.
        expression: `[..., 50]` expression coefficients.
        shape: `[..., s]` identity coefficients, s at most `head.num_shape_coeffs`; None gives the mean head.

    Returns:
        `[..., v, 3]` metres.

    Raises:
        ValueError: `shape` has more coefficients than the head.
    """
    offsets = _einsum("vce,...e->...vc", head.expression_directions, expression)
    vertices = jnp.broadcast_to(head.template, offsets.shape) + offsets
    if shape is not None:
        num_coeffs = shape.shape[-1]
        if num_coeffs > head.num_shape_coeffs:
            raise ValueError(
                f"shape has {num_coeffs} coefficients; head {head.name!r} has at most {head.num_shape_coeffs}"
            )
        vertices = vertices + _einsum("vce,...e->...vc", head.shape_directions[..., :num_coeffs], shape)
    return vertices


def _posed_joints(
    head: HeadModel, rotations: Float[Array, "*b 5 3 3"], joints: Float[Array, "*b 5 3"]
) -> tuple[Array, Array]:
    """Computes the world rotation `[..., 5, 3, 3]` and position `[..., 5, 3]` of every joint."""
    world_rotations = [rotations[..., 0, :, :]]
    world_positions = [joints[..., 0, :]]
    for joint, parent in enumerate(head.parents[1:], start=1):
        offset = joints[..., joint, :] - joints[..., parent, :]
        moved = _einsum("...ij,...j->...i", world_rotations[parent], offset)
        world_positions.append(world_positions[parent] + moved)
        world_rotations.append(
            _einsum("...ij,...jk->...ik", world_rotations[parent], rotations[..., joint, :, :])
        )
    return jnp.stack(world_rotations, axis=-3), jnp.stack(world_positions, axis=-2)


def skin(
    head: HeadModel, shaped: Float[Array, "*b v 3"], axis_angles: Float[Array, "*b 5 3"]
) -> tuple[Float[Array, "*b v 3"], Float[Array, "*b 5 3"]]:
    """Applies pose correctives and linear blend skinning to shaped vertices.

    Args:
        head: the head model.
        shaped: `[..., v, 3]` output of `shaped_vertices`, metres.
        axis_angles: `[..., 5, 3]` axis-angle of each joint relative to its parent, radians.

    Returns:
        Posed vertices `[..., v, 3]` and posed joints `[..., 5, 3]`, metres.
    """
    _check_last_axis("axis_angles", axis_angles, 3)
    rotations = rotation_matrix(axis_angles)
    joints = _einsum("jv,...vc->...jc", head.joint_regressor, shaped)
    relative = rotations[..., 1:, :, :]
    relative = relative - _identity(relative)
    pose_feature = relative.reshape(*relative.shape[:-3], head.pose_directions.shape[0])  # [..., 36]
    posed = shaped + _einsum("...p,pvc->...vc", pose_feature, head.pose_directions)
    world_rotations, world_positions = _posed_joints(head, rotations, joints)
    # A joint maps u to R u + (position - R rest_position). Blend R and the offset first, then apply them once.
    offsets = world_positions - _einsum("...jcd,...jd->...jc", world_rotations, joints)
    blended_rotation = _einsum("vj,...jcd->...vcd", head.skinning_weights, world_rotations)
    blended_offset = _einsum("vj,...jc->...vc", head.skinning_weights, offsets)
    vertices = _einsum("...vcd,...vd->...vc", blended_rotation, posed) + blended_offset
    return vertices, world_positions


def head_vertices(
    head: HeadModel,
    expression: Float[Array, "*b 50"],
    jaw_pose: Float[Array, "*b 3"],
    *,
    shape: Float[Array, "*b s"] | None = None,
    global_rotation: Float[Array, "*b 3"] | None = None,
    neck_pose: Float[Array, "*b 3"] | None = None,
    eye_pose: Float[Array, "*b 6"] | None = None,
    translation: Float[Array, "*b 3"] | None = None,
) -> Float[Array, "*b v 3"]:
    """Computes the vertices of a head in a given expression and pose. Leading axes broadcast.

    Args:
        head: the head model with v vertices.
        expression: `[..., 50]` expression coefficients.
        jaw_pose: `[..., 3]` axis-angle of the jaw, radians; a positive x opens the mouth.
        shape: `[..., s]` identity coefficients; None gives the mean head.
        global_rotation: `[..., 3]` axis-angle of the root, radians. None means zero, here and below.
        neck_pose: `[..., 3]` axis-angle of the neck, radians.
        eye_pose: `[..., 6]` axis-angle of the left eye followed by that of the right eye, radians.
        translation: `[..., 3]` offset added after all rotations, metres.

    Returns:
        `[..., v, 3]` metres.

    Raises:
        ValueError: The last axis of an argument does not have the size stated above.
    """
    _check_last_axis("expression", expression, EXPRESSION_DIM)
    _check_last_axis("jaw_pose", jaw_pose, 3)
    given = {
        "global_rotation": (global_rotation, 3),
        "neck_pose": (neck_pose, 3),
        "eye_pose": (eye_pose, 6),
        "translation": (translation, 3),
    }
    poses = {
        name: jnp.zeros((size,), jaw_pose.dtype) if value is None else value
        for name, (value, size) in given.items()
    }
    for name, (_, size) in given.items():
        _check_last_axis(name, poses[name], size)
    arrays = [expression, jaw_pose, *poses.values(), *([] if shape is None else [shape])]
    leading = jnp.broadcast_shapes(*(array.shape[:-1] for array in arrays))
    expression, jaw_pose, root, neck, eyes, offset, *identity = (
        jnp.broadcast_to(array, (*leading, array.shape[-1])) for array in arrays
    )
    axis_angles = jnp.stack([root, neck, jaw_pose, eyes[..., :3], eyes[..., 3:]], axis=-2)  # [..., 5, 3]
    vertices, _ = skin(head, shaped_vertices(head, expression, *identity), axis_angles)
    return vertices + offset[..., None, :]


def motion_coordinates(head: HeadModel, motion: Float[Array, "*b 53"]) -> tuple[Float[Array, "*b v"], ...]:
    """Computes the vertices of motion frames as separate x, y and z arrays, with all other pose inputs at rest.

    The result equals that of `head_vertices`, but only the jaw is blended, because the other four joints do not move:
    a vertex p with jaw weight w moves by w (R - I)(p - J), where R is the jaw rotation and J the jaw joint. The
    coordinates are separate arrays because arrays with a last axis of size 3 are several times slower on vector units.

    Args:
        head: the head model with v vertices; its jaw has no child joints.
        motion: `[..., 53]` motion frames, usually `[b, t, 53]`: 50 expression coefficients, then the jaw axis-angle
            in radians.

    Returns:
        Three arrays `[..., v]`, metres.

    Raises:
        ValueError: The last axis of `motion` is not 53.
    """
    _check_last_axis("motion", motion, MOTION_DIM)
    expression, turn = motion[..., :EXPRESSION_DIM], rotation_offset(motion[..., EXPRESSION_DIM:])
    features = turn.reshape(*turn.shape[:-2], 9)
    correctives = head.pose_directions[9 * (JAW - 1) : 9 * JAW]
    regressor, weights = head.joint_regressor[JAW], head.skinning_weights[:, JAW]
    total = jnp.sum(head.skinning_weights, axis=1)  # 1 up to rounding
    posed, levers = [], []
    for axis in range(3):
        directions, template = head.expression_directions[:, axis], head.template[:, axis]
        regressed = _einsum("v,ve->e", regressor, directions)
        joint = _einsum("v,v->", regressor, template) + _einsum("...e,e->...", expression, regressed)
        offset = _einsum("...e,ve->...v", expression, directions)
        offset = offset + _einsum("...i,iv->...v", features, correctives[..., axis])
        posed.append(jnp.broadcast_to(template, offset.shape) + offset)
        levers.append(posed[-1] - joint[..., None])
    coordinates = []
    for row, point in enumerate(posed):
        moved = sum(turn[..., row, axis, None] * lever for axis, lever in enumerate(levers))
        coordinates.append(
            jnp.broadcast_to(total, point.shape) * point + jnp.broadcast_to(weights, moved.shape) * moved
        )
    return tuple(coordinates)


def motion_vertices(head: HeadModel, motion: Float[Array, "*b 53"]) -> Float[Array, "*b v 3"]:
    """Computes the vertices `[..., v, 3]` of motion frames `[..., 53]`, metres; see `motion_coordinates`."""
    return jnp.stack(motion_coordinates(head, motion), axis=-1)
