"""Embeddings and gradients of a clip are the same alone and in a padded batch of clips from 0.5 to 10 s."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.gpo import POOLINGS, Pooling
from deeptalk_jax.models.speech.mel_encoder import MelEncoder

FRAMES = np.array([250, 13, 100, 42], np.int32)
SAMPLES = np.array([160_000, 8_000, 64_000, 26_800], np.int32)
SHORT = 1  # the clip of 0.5 s


def batch():
    rng = np.random.default_rng(0)
    audio = 0.1 * rng.standard_normal((4, SAMPLES[0])).astype(np.float32)
    return audio, SAMPLES, rng.standard_normal((4, FRAMES[0], 5)).astype(np.float32), FRAMES


def alone(audio, samples, features, frames):
    row = slice(SHORT, SHORT + 1)
    return audio[row, : 640 * FRAMES[SHORT]], samples[row], features[row, : FRAMES[SHORT]], frames[row]


@pytest.mark.parametrize("pooling", ["gpo", "max"])
def test_both_towers_ignore_padding(pooling):
    model = DEE(
        speech_encoder=MelEncoder(dim=4, num_mels=8, num_layers=0, num_heads=2, rate_hz=25),
        audio_layers=0,
        motion_layers=0,
        num_heads=2,
        mlp_dim=6,
        motion_dim=4,
        embedding_dim=3,
        pooling=pooling,
        max_speech_features=250,
    )
    given = batch()
    variables = jax.jit(model.init)(jax.random.key(0), *alone(*given))
    weights = np.random.default_rng(1).standard_normal((2, 2, 3)).astype(np.float32)

    @jax.jit
    def step(variables, row, *inputs):
        def total(variables):
            moments = jnp.stack([jnp.stack(side) for side in model.apply(variables, *inputs)])
            clip = moments[:, :, row]
            return jnp.sum(weights * clip), clip

        return jax.value_and_grad(total, has_aux=True)(variables)

    (_, among), gradient_among = step(variables, SHORT, *given)
    (_, single), gradient_single = step(variables, 0, *alone(*given))
    np.testing.assert_allclose(among, single, rtol=1e-4, atol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient_single))
    for (path, leaf), expected in zip(
        jax.tree_util.tree_leaves_with_path(gradient_among), jax.tree.leaves(gradient_single), strict=True
    ):
        name = jax.tree_util.keystr(path)
        np.testing.assert_allclose(leaf, expected, rtol=1e-3, atol=1e-5 * largest, err_msg=name)


@pytest.mark.parametrize("kind", POOLINGS)
def test_gradients_of_poolings_ignore_padding(kind):
    _, _, x, lengths = batch()
    model, mask = Pooling(kind), length_mask(lengths, x.shape[1])
    variables = model.init(jax.random.key(0), x[:1, :3], mask[:1, :3])
    weights = np.random.default_rng(1).standard_normal(5).astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(x, mask):
        return jnp.sum(model.apply(variables, x, mask) @ weights)

    padded = gradient(x, mask)
    short = gradient(x[SHORT, : FRAMES[SHORT]][None], mask[SHORT, : FRAMES[SHORT]][None])
    np.testing.assert_allclose(padded[SHORT, : FRAMES[SHORT]], short[0], rtol=1e-4, atol=1e-6)
    assert not padded[~mask].any()
    assert np.abs(padded).sum((1, 2)).min() > 0
