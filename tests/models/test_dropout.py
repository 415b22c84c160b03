import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.dropout import Dropout

KEY = jax.random.key(5)


def dropped(rate, x, key=KEY):
    return Dropout(rate).apply({}, x, train=True, rngs={"dropout": key})


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_share_and_mean_are_kept_and_entries_are_independent(rate):
    x = jnp.ones((64, 50, 13))  # 13 bytes are no whole number of words
    y = np.asarray(dropped(rate, x))
    share, level = round(256 * rate) / 256, 1.0 / (1.0 - round(256 * rate) / 256)
    np.testing.assert_allclose(np.unique(y), [0.0, level], rtol=1e-6)
    deviation = np.sqrt(share * (1.0 - share) / y.size)
    assert abs((y == 0).mean() - share) < 4 * deviation
    # Neighbours along every axis are zero together as often as chance has it.
    for axis in range(3):
        zero = np.moveaxis(y == 0, axis, 0)
        assert abs((zero[1:] & zero[:-1]).mean() - share**2) < 4 * deviation


def test_gradient_passes_where_the_entry_does():
    x = jnp.linspace(1.0, 2.0, 40).reshape(5, 8)
    gradient = jax.grad(lambda x: dropped(0.5, x).sum())(x)
    np.testing.assert_allclose(gradient, np.where(np.asarray(dropped(0.5, x)) == 0, 0.0, 2.0))


def test_keys_decide_and_evaluation_changes_nothing():
    x = jnp.ones((4, 32))
    assert (dropped(0.5, x) != dropped(0.5, x, jax.random.key(6))).any()
    assert Dropout(0.5).apply({}, x, train=False) is x
    assert dropped(0.0, x) is x
    half = dropped(0.5, x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half.astype(jnp.float32), dropped(0.5, x))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_odd_rates_are_refused(rate):
    with pytest.raises(ValueError, match=r"dropout rate|NaN"):
        dropped(rate, jnp.ones((2, 4)))
