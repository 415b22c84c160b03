import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from deeptalk_jax.models import transformer
from deeptalk_jax.models.transformer import TransformerEncoder, TransformerLayer

HEADS, DIM, MLP, LENGTH = 3, 12, 7, 5


def by_hand(params, x, bias):
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


def test_layer_equals_numpy():
    rng = np.random.default_rng(0)
    x, bias = rng.standard_normal((LENGTH, DIM)), rng.standard_normal((HEADS, LENGTH, LENGTH))
    layer = TransformerLayer(HEADS, MLP)
    variables = layer.init(jax.random.key(0), jnp.asarray(x[None], jnp.float32))
    random = [0.3 * rng.standard_normal(leaf.shape) for leaf in jax.tree.leaves(variables)]
    variables = jax.tree.unflatten(
        jax.tree.structure(variables), [jnp.asarray(r, jnp.float32) for r in random]
    )
    out = layer.apply(variables, jnp.asarray(x[None], jnp.float32), bias=jnp.asarray(bias, jnp.float32))
    np.testing.assert_allclose(out[0], by_hand(variables["params"], x, bias), rtol=2e-5, atol=2e-6)


def test_padding_changes_nothing():
    x = jax.random.normal(jax.random.key(1), (2, LENGTH, DIM))
    encoder = TransformerEncoder(2, HEADS, MLP)
    variables = encoder.init(jax.random.key(0), x)
    alone = encoder.apply(variables, x[:, :3])
    mask = jnp.arange(LENGTH)[None] < jnp.array([[3], [3]])
    padded = encoder.apply(variables, x.at[:, 3:].set(100.0), mask=mask)
    np.testing.assert_allclose(padded[:, :3], alone, rtol=1e-5, atol=1e-6)


def test_dropout_only_while_training():
    x = jax.random.normal(jax.random.key(1), (1, LENGTH, DIM))
    layer = TransformerLayer(HEADS, MLP, dropout_rate=0.5)
    variables = layer.init(jax.random.key(0), x)
    runs = [layer.apply(variables, x, train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (1, 2)]
    assert not np.allclose(*runs)
    np.testing.assert_array_equal(layer.apply(variables, x), layer.apply(variables, x))


def test_rejects_unknown_activation_and_odd_heads():
    x = jnp.zeros((1, LENGTH, DIM))
    with pytest.raises(ValueError, match=r"activation='swish' is not one of \['gelu', 'relu'\]"):
        TransformerLayer(HEADS, MLP, activation="swish").init(jax.random.key(0), x)
    with pytest.raises(ValueError, match="num_heads=5 does not divide the feature size 12"):
        TransformerLayer(5, MLP).init(jax.random.key(0), x)


def test_head_by_head_gives_the_same_numbers(monkeypatch):
    rng = np.random.default_rng(2)
    x = jnp.asarray(rng.standard_normal((2, LENGTH, DIM)), jnp.float32)
    bias = jnp.asarray(rng.standard_normal((HEADS, LENGTH, LENGTH)), jnp.float32)
    mask = jnp.arange(LENGTH)[None] < jnp.array([LENGTH, 2])[:, None]
    model = TransformerEncoder(1, HEADS, MLP)
    variables = model.init(jax.random.key(0), x)
    for arguments in ({}, {"bias": bias}, {"bias": bias, "mask": mask}):
        at_once = model.apply(variables, x, **arguments)
        monkeypatch.setattr(transformer, "_MANY_SCORES", 0)
        np.testing.assert_allclose(model.apply(variables, x, **arguments), at_once, rtol=1e-5, atol=1e-6)
        monkeypatch.undo()
