"""GPO against NumPy, and padding in all poolings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.gpo import GPO, Pooling
from deeptalk_jax.models.positions import sinusoidal_positions

LENGTH, DIM = 7, 5


@pytest.fixture(scope="module")
def gpo():
    model = GPO()
    x = jax.random.normal(jax.random.key(0), (2, LENGTH, DIM))
    variables = model.init(jax.random.key(1), x, length_mask(jnp.array([LENGTH, LENGTH]), LENGTH))
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    random = [0.5 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return model, jax.tree.unflatten(structure, random), x


def gru_in_numpy(params, inputs):
    """Equations of torch's GRU in NumPy float64."""
    p = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    hidden, states = np.zeros(32), []
    for row in inputs:
        from_input = np.split(row @ p["input_kernel"] + p["input_bias"], 3)
        from_hidden = np.split(hidden @ p["hidden_kernel"] + p["hidden_bias"], 3)
        reset, update = (scipy.special.expit(from_input[i] + from_hidden[i]) for i in (0, 1))
        candidate = np.tanh(from_input[2] + reset * from_hidden[2])
        hidden = (1 - update) * candidate + update * hidden
        states.append(hidden)
    return np.array(states)


@pytest.mark.parametrize("length", [1, 4, LENGTH])
def test_equals_numpy_and_ignores_padding(gpo, length):
    model, variables, x = gpo
    params = variables["params"]
    code = sinusoidal_positions(length, 32)
    states = 0.5 * (
        gru_in_numpy(params["forward"], code) + gru_in_numpy(params["backward"], code[::-1])[::-1]
    )
    weights = scipy.special.softmax(states @ np.asarray(params["score"]["kernel"])[:, 0] / 0.1)
    expected = weights @ -np.sort(-np.asarray(x[0, :length]), axis=0)

    mask = length_mask(jnp.array([length, LENGTH]), LENGTH)
    noise = jnp.where(mask[..., None], x, 1e6)
    pooled = model.apply(variables, noise, mask)
    np.testing.assert_allclose(pooled[0], expected, rtol=2e-4, atol=1e-5)
    given = model.apply(variables, mask, method=GPO.weights)
    np.testing.assert_allclose(given[0, :length], weights, rtol=2e-4, atol=1e-6)
    np.testing.assert_array_equal(given[0, length:], 0)


def test_gradient_reaches_valid_positions_only(gpo):
    model, variables, x = gpo
    mask = length_mask(jnp.array([3, LENGTH]), LENGTH)
    gradient = jax.grad(lambda x: jnp.sum(model.apply(variables, x, mask)))(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[0, 3:], 0)
    np.testing.assert_allclose(jnp.sum(gradient[0], 0), 1.0, rtol=1e-5)  # because weights sum to 1


def test_mean_and_max_ignore_padding_and_unknown_kinds_are_rejected():
    x = jnp.array([[[1.0], [5.0], [99.0]]])
    mask = jnp.array([[True, True, False]])
    assert Pooling("mean").apply({}, x, mask)[0, 0] == 3.0
    assert Pooling("max").apply({}, x, mask)[0, 0] == 5.0
    with pytest.raises(ConfigError, match="pooling='sum' is not one of"):
        Pooling("sum").apply({}, x, mask)
