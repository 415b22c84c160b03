"""Cross-entropy and class weights by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.losses.classification import balanced_class_weights, cross_entropy


def test_balanced_weights_give_every_class_the_same_total():
    counts = np.array([1, 3, 4])
    weights = balanced_class_weights(counts)
    np.testing.assert_allclose(weights * counts, [8 / 3] * 3, rtol=1e-6)
    with pytest.raises(ValueError, match=r"classes \[1\] have no example"):
        balanced_class_weights(np.array([2, 0]))


def test_cross_entropy_by_hand():
    logits = jnp.array([[0.0, jnp.log(3.0)]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1])), -np.log([0.75]), rtol=1e-6)
