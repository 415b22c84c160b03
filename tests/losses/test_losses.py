"""Cross-entropy, class weights and reduction of losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.losses.classification import balanced_class_weights, cross_entropy
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


def test_balanced_weights_give_every_class_the_same_total():
    counts = np.array([1, 3, 4])
    weights = balanced_class_weights(counts)
    np.testing.assert_allclose(weights * counts, [8 / 3] * 3, rtol=1e-6)
    with pytest.raises(ValueError, match=r"classes \[1\] have no example"):
        balanced_class_weights(np.array([2, 0]))


def test_cross_entropy_by_hand():
    logits = jnp.array([[0.0, jnp.log(3.0)]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1])), -np.log([0.75]), rtol=1e-6)
