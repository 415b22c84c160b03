"""Dropout: statistics of the mask, gradients, random keys and invalid rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.dropout import Dropout

KEY = jax.random.key(5)


def dropped(rate, x, key=KEY):
    return Dropout(rate).apply({}, x, train=True, rngs={"dropout": key})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_mean_are_as_expected_and_entries_are_independent(rate):
    x = jnp.ones((64, 50, 13))  # 13 bytes do not fill whole words
    y = np.asarray(dropped(rate, x))
    share, level = round(256 * rate) / 256, 1.0 / (1.0 - round(256 * rate) / 256)
    np.testing.assert_allclose(np.unique(y), [0.0, level], rtol=1e-6)
    deviation = np.sqrt(share * (1.0 - share) / y.size)
    assert abs((y == 0).mean() - share) < 4 * deviation
    # Along every axis, neighbours are both zero as often as expected of independent entries.
    for axis in range(3):
        zero = np.moveaxis(y == 0, axis, 0)
        assert abs((zero[1:] & zero[:-1]).mean() - share**2) < 4 * deviation


def test_gradient_has_the_same_mask():
    x = jnp.linspace(1.0, 2.0, 40).reshape(5, 8)
    gradient = jax.grad(lambda x: dropped(0.5, x).sum())(x)
    np.testing.assert_allclose(gradient, np.where(np.asarray(dropped(0.5, x)) == 0, 0.0, 2.0))


def test_mask_depends_on_the_key_and_evaluation_is_the_identity():
    x = jnp.ones((4, 32))
    assert (dropped(0.5, x) != dropped(0.5, x, jax.random.key(6))).any()
    assert Dropout(0.5).apply({}, x, train=False) is x
    assert dropped(0.0, x) is x
    half = dropped(0.5, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half.astype(jnp.float32), dropped(0.5, x))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_outside_0_to_1_are_rejected(rate):
    with pytest.raises(ConfigError, match=rf"dropout_rate={rate}: expected a number in"):
        dropped(rate, jnp.ones((2, 4)))
