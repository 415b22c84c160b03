import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head import gram
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.model import HeadModel, HeadSurface

NUM_VERTICES = 37


@pytest.fixture(scope="module")
def random_head():
    rng = np.random.default_rng(0)

    def rows_of_one(shape):
        weights = rng.random(shape)
        return weights / weights.sum(-1, keepdims=True)

    surface = HeadSurface(
        faces=np.array([[0, 1, 2]], np.int32),
        materials=np.zeros(NUM_VERTICES, np.uint8),
        albedo=np.ones((NUM_VERTICES, 3), np.float32),
    )
    return HeadModel(
        template=0.1 * rng.standard_normal((NUM_VERTICES, 3)),
        expression_directions=0.01 * rng.standard_normal((NUM_VERTICES, 3, 50)),
        shape_directions=0.01 * rng.standard_normal((NUM_VERTICES, 3, 7)),
        pose_directions=0.01 * rng.standard_normal((36, NUM_VERTICES, 3)),
        joint_regressor=rows_of_one((5, NUM_VERTICES)),
        skinning_weights=rows_of_one((NUM_VERTICES, 5)),
        surface=surface,
    )


@pytest.fixture(scope="module")
def motions():
    rng = np.random.default_rng(1)
    return 0.3 * rng.standard_normal((2, 4, 53)), 0.3 * rng.standard_normal((2, 4, 53))


@pytest.mark.parametrize("subset", [None, np.array([3, 5, 30])])
def test_equals_explicit_vertices(random_head, motions, subset):
    weights = np.linspace(0.5, 2.0, NUM_VERTICES if subset is None else len(subset))
    chosen = np.arange(NUM_VERTICES) if subset is None else subset
    with jax.enable_x64(True):
        head = jax.tree.map(jnp.asarray, random_head)
        factor = gram.distance_factor(head, subset, weights)

        def explicit(motion):
            error = motion_vertices(head, motion) - motion_vertices(head, jnp.asarray(motions[1]))
            per_vertex = jnp.sum(jnp.square(error[:, :, chosen]), axis=-1)
            return jnp.sum(per_vertex * weights[None, None], axis=-1) / (3 * weights.sum())

        def implicit(motion):
            return gram.squared_distance(factor, motion, jnp.asarray(motions[1]))

        motion = jnp.asarray(motions[0])
        np.testing.assert_allclose(jax.jit(implicit)(motion), jax.jit(explicit)(motion), rtol=2e-6)
        gradients = [jax.jit(jax.grad(lambda m, f=f: jnp.sum(f(m))))(motion) for f in (implicit, explicit)]
        np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6 * np.abs(gradients[1]).max())


def test_vertex_map_is_exact_in_float64(random_head, motions):
    with jax.enable_x64(True):
        head = jax.tree.map(jnp.asarray, random_head)
        jacobian = gram.vertex_jacobian(head, np.arange(NUM_VERTICES))
        features = [np.asarray(gram.motion_features(jnp.asarray(m))) for m in motions]
        vertices = [np.asarray(motion_vertices(head, jnp.asarray(m))) for m in motions]
    moved = np.einsum("vcf,btf->btvc", jacobian, features[0] - features[1])
    np.testing.assert_allclose(moved, vertices[0] - vertices[1], rtol=0, atol=1e-12)


def test_rejects_weights_of_another_length(random_head):
    with pytest.raises(ValueError, match=r"3 vertices with weights of shape \(2,\)"):
        gram.distance_factor(random_head, np.arange(3), np.ones(2))
