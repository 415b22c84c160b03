"""Baselines of TH-VQVAE: the prior with one level of codes, and the temporal VAE."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.one_level_prior import OneLevelPrior
from deeptalk_jax.models.quantizer import EMAQuantizer
from deeptalk_jax.models.temporal_vae import TemporalVAE


def one_level(codes_per_4_frames):
    return OneLevelPrior(EMAQuantizer(6, 8), 12, 20, codes_per_4_frames, num_heads=4)


@pytest.mark.parametrize("codes_per_4_frames", [2, 3])
def test_one_level_prior_has_the_configured_code_rate(codes_per_4_frames):
    model = one_level(codes_per_4_frames)
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 16, 53)))
    assert output.motion.shape == (2, 16, 53)
    assert list(output.levels) == list(model.codebook_sizes) == ["codes"]
    assert output.levels["codes"].codes.shape == (2, 4 * codes_per_4_frames, 8)
    assert variables["codebook"]["quantizer"]["embedding"].shape == (6, 8)


def test_vae_samples_in_training_and_uses_the_mean_in_evaluation():
    model = TemporalVAE(dim=8, latent_dim=6, mlp_dim=12, num_heads=4, dropout_rate=0.0)
    motion = jax.random.normal(jax.random.key(0), (2, 16, 53))
    shapes, numbers = jax.eval_shape(model.init, jax.random.key(1), motion), np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: numbers.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)

    @jax.jit
    def trained(key):
        return model.apply(variables, motion, train=True, rngs={"sample": key}, mutable=["batch_stats"])[0]

    one, other = trained(jax.random.key(2)), trained(jax.random.key(3))
    assert one.latents.mean.shape == one.latents.log_variance.shape == (2, 2, 6)  # one latent per 8 frames
    np.testing.assert_array_equal(one.latents.mean, other.latents.mean)
    assert float(jnp.abs(one.motion - other.motion).max()) > 1e-3
    # Evaluation needs no random key, and does not depend on the variance.
    wide = jax.tree.map(jnp.copy, variables)
    wide["params"]["log_variance"]["bias"] += 4.0
    evaluated = jax.jit(model.apply)
    np.testing.assert_array_equal(evaluated(wide, motion).motion, evaluated(variables, motion).motion)
    assert one.levels == model.codebook_sizes == {}


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (one_level(5), (1, 20, 53), r"codes_per_4_frames=5 is not one of \(2, 3\)"),
        (one_level(3), (1, 10, 53), r"t a multiple of 4, got \(1, 10, 53\)"),
        (TemporalVAE(8, 6, 12, 4), (1, 12, 53), r"t a multiple of 8, got \(1, 12, 53\)"),
    ],
)
def test_wrong_rates_and_shapes_are_rejected(model, shape, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))
