"""Masked means and weighted totals by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.losses.reduce import masked_mean, weighted_total


def test_masked_mean_by_hand():
    values = jnp.array([[1.0, 2.0], [3.0, jnp.nan]])
    mask = jnp.array([[True, True], [True, False]])
    np.testing.assert_allclose(masked_mean(values, mask), 2.0)
    weights = jnp.array([[1.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(masked_mean(values, mask, weights), 10.0 / 4.0)
    assert masked_mean(values, jnp.zeros_like(mask)) == 0.0
    np.testing.assert_allclose(masked_mean(jnp.arange(6.0).reshape(1, 2, 3), jnp.array([[True, False]])), 1.0)
    gradient = jax.grad(lambda v: masked_mean(v, mask))(values)
    np.testing.assert_allclose(gradient, [[1 / 3, 1 / 3], [1 / 3, 0]], rtol=1e-6)


def test_weighted_total_uses_terms_with_a_weight_and_rejects_unknown_ones():
    terms = {"a": jnp.array(2.0), "b": jnp.array(3.0)}
    assert weighted_total(terms, {"a": 0.5}) == 1.0
    with pytest.raises(KeyError, match="c"):
        weighted_total(terms, {"c": 1.0})
