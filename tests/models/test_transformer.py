"""Transformer layers against NumPy, with padding, dropout and invalid fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.transformer import TransformerEncoder, TransformerLayer

HEADS, DIM, MLP, LENGTH = 3, 12, 7, 5


def layer_in_numpy(params, x, bias):
    """One post-norm layer in NumPy float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def norm(values, weights):
        centred = values - values.mean(-1, keepdims=True)
        scaled = centred / np.sqrt(values.var(-1, keepdims=True) + 1e-5)
        return scaled * weights["scale"] + weights["bias"]

    heads = []
    attention = p["attention"]
    for head in range(HEADS):
        query, key, value = (
            x @ attention[name]["kernel"][:, head] + attention[name]["bias"][head]
            for name in ("query", "key", "value")
        )
        weights = scipy.special.softmax(query @ key.T / np.sqrt(DIM / HEADS) + bias[head], axis=-1)
        heads.append(weights @ value @ attention["out"]["kernel"][head])
    x = norm(x + sum(heads) + attention["out"]["bias"], p["attention_norm"])
    hidden = x @ p["mlp_in"]["kernel"] + p["mlp_in"]["bias"]
    hidden = 0.5 * hidden * (1 + scipy.special.erf(hidden / np.sqrt(2)))
    return norm(x + hidden @ p["mlp_out"]["kernel"] + p["mlp_out"]["bias"], p["mlp_norm"])


@pytest.mark.parametrize("train", [False, True])
def test_layer_equals_numpy(train):
    rng = np.random.default_rng(0)
    x, bias = rng.standard_normal((LENGTH, DIM)), rng.standard_normal((HEADS, LENGTH, LENGTH))
    layer = TransformerLayer(HEADS, MLP, dropout_rate=0.0)
    variables = layer.init(jax.random.key(0), jnp.asarray(x[None], jnp.float32))
    random = [0.3 * rng.standard_normal(leaf.shape) for leaf in jax.tree.leaves(variables)]
    variables = jax.tree.unflatten(
        jax.tree.structure(variables), [jnp.asarray(r, jnp.float32) for r in random]
    )
    out = layer.apply(
        variables, jnp.asarray(x[None], jnp.float32), bias=jnp.asarray(bias, jnp.float32), train=train
    )
    np.testing.assert_allclose(out[0], layer_in_numpy(variables["params"], x, bias), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("train", [False, True])
def test_padding_does_not_affect_valid_positions(train):
    x = jax.random.normal(jax.random.key(1), (2, LENGTH, DIM))
    encoder = TransformerEncoder(2, HEADS, MLP, dropout_rate=0.0)
    variables = encoder.init(jax.random.key(0), x)
    alone = encoder.apply(variables, x[:, :3], train=train)
    mask = jnp.arange(LENGTH)[None] < jnp.array([[3], [3]])
    padded = encoder.apply(variables, x.at[:, 3:].set(100.0), mask=mask, train=train)
    np.testing.assert_allclose(padded[:, :3], alone, rtol=1e-5, atol=1e-6)


def test_dropout_is_applied_in_training_only():
    x = jax.random.normal(jax.random.key(1), (1, LENGTH, DIM))
    layer = TransformerLayer(HEADS, MLP, dropout_rate=0.5)
    variables = layer.init(jax.random.key(0), x)
    runs = [layer.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 2)]
    assert not np.allclose(*runs)
    np.testing.assert_array_equal(layer.apply(variables, x), layer.apply(variables, x))


def test_unknown_activation_and_indivisible_heads_are_rejected():
    x = jnp.zeros((1, LENGTH, DIM))
    with pytest.raises(ConfigError, match=r"activation='swish' is not one of \['gelu', 'relu'\]"):
        TransformerLayer(HEADS, MLP, activation="swish").init(jax.random.key(0), x)
    with pytest.raises(ConfigError, match="num_heads=5 does not divide the feature size 12"):
        TransformerLayer(5, MLP).init(jax.random.key(0), x)
