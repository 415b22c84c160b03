"""Products over flattened leading axes equal XLA's own, value and gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.flat_dot import flat_dot_general


@pytest.mark.parametrize(
    ("lhs", "rhs", "axes"),
    [
        ((2, 3, 4), (4, 5), ((2,), (0,))),
        ((2, 3, 4), (4, 5, 6), ((2,), (0,))),
        ((2, 3, 4, 5), (4, 5, 6), ((2, 3), (0, 1))),
        ((4,), (4, 5), ((0,), (0,))),
    ],
)
def test_equals_dot_general(lhs, rhs, axes):
    rng = np.random.default_rng(0)
    lhs, rhs = (jnp.asarray(rng.integers(-4, 5, shape), jnp.float32) for shape in (lhs, rhs))
    dimensions = (axes, ((), ()))

    def loss(dot, lhs, rhs):
        return jnp.sum(jnp.square(dot(lhs, rhs, dimensions)))

    np.testing.assert_array_equal(
        flat_dot_general(lhs, rhs, dimensions), jax.lax.dot_general(lhs, rhs, dimensions)
    )
    for argument in (1, 2):
        ours, theirs = (
            jax.grad(loss, argument)(dot, lhs, rhs) for dot in (flat_dot_general, jax.lax.dot_general)
        )
        np.testing.assert_array_equal(ours, theirs)  # small integers: float32 is exact


@pytest.mark.parametrize(
    "dimensions", [(((0,), (0,)), ((), ())), (((1,), (1,)), ((), ())), (((1,), (0,)), ((0,), (1,)))]
)
def test_products_of_no_dense_layer_are_refused(dimensions):
    with pytest.raises(ValueError, match="dense layer"):
        flat_dot_general(jnp.ones((3, 3)), jnp.ones((3, 3)), dimensions)


def test_the_gradient_of_a_kernel_is_one_matrix_product():
    layer = nn.Dense(5, dot_general=flat_dot_general)
    x = jnp.ones((2, 3, 4))
    variables = layer.init(jax.random.key(0), x)
    gradient = jax.grad(lambda variables: jnp.sum(layer.apply(variables, x)))
    products = [
        [variable.aval.shape for variable in equation.invars]
        for equation in jax.make_jaxpr(gradient)(variables).eqns
        if equation.primitive.name == "dot_general"
    ]
    assert {(6, 5), (6, 4)} in [set(shapes) for shapes in products]
