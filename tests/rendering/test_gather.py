"""Gathers of rows and their transposes, with gradients, against plain indexing."""

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.rendering.gather import add_rows, take_rows

INDICES = np.array([[4, 0, 2], [2, 2, 5]])


def test_take_rows_and_its_gradient_equal_plain_indexing():
    values = jax.random.normal(jax.random.key(0), (7, 2))
    weights = jax.random.normal(jax.random.key(1), (2, 3, 2))
    np.testing.assert_array_equal(take_rows(values, INDICES), values[INDICES])
    expected = jax.grad(lambda v: jnp.sum(weights * v[INDICES]))(values)
    got = jax.grad(lambda v: jnp.sum(weights * take_rows(v, INDICES)))(values)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_add_rows_and_its_gradient_are_the_transpose_of_take_rows():
    rows = jax.random.normal(jax.random.key(0), (2, 3))
    weights = jax.random.normal(jax.random.key(1), (7, 3))
    total, gradient = jax.value_and_grad(lambda r: jnp.sum(weights * add_rows(r, INDICES, 7)))(rows)
    assert np.isclose(total, np.sum(weights[INDICES] * rows[:, None]))
    np.testing.assert_allclose(gradient, np.sum(weights[INDICES], axis=1), atol=1e-6)
