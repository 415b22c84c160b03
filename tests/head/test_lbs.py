"""Skinning: parity with smplx and with a float64 reference, derivatives, broadcasting and argument checks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deeptalk_jax.head.lbs import head_vertices, motion_vertices, rotation_matrix, shaped_vertices, skin

jitted_vertices = jax.jit(head_vertices)


def reference_vertices(head, expression, axis_angles):
    """Computes one frame in float64 with 4 x 4 matrices, independently of the tested implementation."""
    get = lambda name: np.asarray(getattr(head, name), np.float64)  # noqa: E731
    shaped = get("template") + get("expression_directions") @ expression
    joints = get("joint_regressor") @ shaped
    rotations = Rotation.from_rotvec(axis_angles).as_matrix()
    feature = (rotations[1:] - np.eye(3)).ravel()
    posed = shaped + np.tensordot(feature, get("pose_directions"), axes=1)
    world = []
    for joint, parent in enumerate(head.parents):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if parent >= 0 else 0.0)
        world.append(local if parent < 0 else world[parent] @ local)
    vertices = np.zeros_like(posed)
    for joint, transform in enumerate(world):
        rest = np.eye(4)
        rest[:3, 3] = -joints[joint]
        moved = np.c_[posed, np.ones(len(posed))] @ (transform @ rest).T
        vertices += get("skinning_weights")[:, joint, None] * moved[:, :3]
    return vertices


def test_vertices_equal_smplx(golden, synthetic_flame_head):
    got = jitted_vertices(
        synthetic_flame_head,
        golden["expression"],
        golden["pose_global_jaw"][:, 3:],
        shape=golden["shape"],
        global_rotation=golden["pose_global_jaw"][:, :3],
        neck_pose=golden["neck"],
        eye_pose=golden["eyes"],
        translation=golden["transl"],
    )
    np.testing.assert_allclose(got[:, ::4], golden["vertices_every4"], rtol=0, atol=1e-6)


def test_vertices_with_defaults_equal_smplx(golden, synthetic_flame_head):
    pose = golden["pose_global_jaw"]
    got = jitted_vertices(
        synthetic_flame_head, golden["expression"], pose[:, 3:], global_rotation=pose[:, :3]
    )
    np.testing.assert_allclose(got[:, ::4], golden["vertices_defaults_every4"], rtol=0, atol=1e-6)


def test_joints_equal_smplx(golden, synthetic_flame_head):
    head = synthetic_flame_head
    shaped = shaped_vertices(head, golden["expression"], golden["shape"])
    rest = jnp.einsum("jv,bvc->bjc", head.joint_regressor, shaped)
    np.testing.assert_allclose(rest, golden["rest_joints"], rtol=0, atol=1e-6)
    root, jaw = golden["pose_global_jaw"][:, :3], golden["pose_global_jaw"][:, 3:]
    axis_angles = np.stack([root, golden["neck"], jaw, golden["eyes"][:, :3], golden["eyes"][:, 3:]], axis=1)
    _, posed = skin(head, shaped, jnp.asarray(axis_angles))
    np.testing.assert_allclose(posed, golden["joints_posed"], rtol=0, atol=1e-6)


def test_rotations_equal_smplx_and_scipy(golden):
    got = rotation_matrix(jnp.asarray(golden["rodrigues_x"]))
    np.testing.assert_allclose(got, golden["rodrigues_R"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        got, Rotation.from_rotvec(golden["rodrigues_x"]).as_matrix(), rtol=0, atol=1e-6
    )


def sequence_loss(motion, target, head):
    return 1e6 * jnp.mean((motion_vertices(head, motion) - motion_vertices(head, target)) ** 2)


def test_loss_and_gradients_equal_torch(golden, synthetic_flame_head):
    sequence = jnp.asarray(golden["seq"])
    target = jnp.concatenate([0.9 * sequence[..., :50], 0.8 * sequence[..., 50:]], axis=-1)
    vertices = jax.jit(motion_vertices)(synthetic_flame_head, sequence)
    np.testing.assert_allclose(vertices[0, :, ::8], golden["seq_vertices_s0_every8"], rtol=0, atol=1e-6)
    value_and_gradient = jax.jit(jax.value_and_grad(sequence_loss))
    loss, gradient = value_and_gradient(sequence, target, synthetic_flame_head)
    np.testing.assert_allclose(loss, golden["seq_loss"][0], rtol=1e-5)
    np.testing.assert_allclose(gradient, golden["seq_grad"], rtol=0, atol=9.2e-6)
    _, at_zero = value_and_gradient(jnp.zeros_like(sequence), target, synthetic_flame_head)
    np.testing.assert_allclose(at_zero, golden["zero_pose_grad"], rtol=0, atol=2.4e-4)


def test_procedural_head_equals_float64_reference(head):
    rng = np.random.default_rng(3)
    expression, axis_angles = 0.5 * rng.standard_normal(50), 0.3 * rng.standard_normal((5, 3))
    f32 = lambda x: jnp.asarray(x, jnp.float32)  # noqa: E731
    got = jitted_vertices(
        head,
        f32(expression),
        f32(axis_angles[2]),
        global_rotation=f32(axis_angles[0]),
        neck_pose=f32(axis_angles[1]),
        eye_pose=f32(axis_angles[3:].ravel()),
    )
    np.testing.assert_allclose(got, reference_vertices(head, expression, axis_angles), rtol=0, atol=1e-6)


def test_gradient_at_zero_pose_is_the_finite_difference():
    weights = np.random.default_rng(5).standard_normal((3, 3)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda w: jnp.sum(weights * rotation_matrix(w))))(jnp.zeros(3))
    step = 1e-4
    for axis in range(3):
        plus, minus = (
            np.sum(weights * Rotation.from_rotvec(s * step * np.eye(3)[axis]).as_matrix()) for s in (1, -1)
        )
        np.testing.assert_allclose(gradient[axis], (plus - minus) / (2 * step), rtol=1e-5)


def test_gradient_is_finite_where_the_offset_cancels():
    jacobian = jax.jit(jax.jacobian(rotation_matrix))(jnp.full(3, -1e-8))
    assert np.isfinite(jacobian).all()


@pytest.mark.parametrize("name", ["embedded", "flame"])
def test_motion_vertices_equal_head_vertices(head, synthetic_flame_head, name):
    model = {"embedded": head, "flame": synthetic_flame_head}[name]
    motion = jnp.asarray(0.3 * np.random.default_rng(2).standard_normal((2, 3, 53)), jnp.float32)
    expected = jitted_vertices(model, motion[..., :50], motion[..., 50:])
    np.testing.assert_allclose(jax.jit(motion_vertices)(model, motion), expected, rtol=0, atol=3e-7)


def test_leading_axes_broadcast_and_vmap_agrees(head):
    rng = np.random.default_rng(1)
    motion = jnp.asarray(0.3 * rng.standard_normal((2, 3, 53)), jnp.float32)
    batched = jax.jit(motion_vertices)(head, motion)
    assert batched.shape == (2, 3, head.num_vertices, 3)
    mapped = jax.jit(jax.vmap(motion_vertices, in_axes=(None, 0)))(head, motion)
    np.testing.assert_allclose(mapped, batched, rtol=0, atol=1e-6)
    one_shape = jitted_vertices(head, motion[..., :50], motion[..., 50:], shape=jnp.ones(4))
    np.testing.assert_allclose(
        one_shape[1, 2],
        jitted_vertices(head, motion[1, 2, :50], motion[1, 2, 50:], shape=jnp.ones(4)),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(49), np.zeros(3)), r"expression has shape .*last axis must be 50"),
        ((np.zeros(50), np.zeros(4)), r"jaw_pose has shape .*last axis must be 3"),
    ],
)
def test_wrong_expression_or_jaw_size_raises(head, arguments, message):
    with pytest.raises(ValueError, match=message):
        head_vertices(head, *map(jnp.asarray, arguments))


def test_wrong_motion_or_shape_size_raises(head):
    with pytest.raises(ValueError, match=r"motion has shape .*must be 53"):
        motion_vertices(head, jnp.zeros((2, 56)))
    with pytest.raises(ValueError, match="shape has 101 coefficients; head 'procedural' has"):
        head_vertices(head, jnp.zeros(50), jnp.zeros(3), shape=jnp.zeros(101))
