"""DEE: unit means, length limits, mixtures and bfloat16. `test_dee_padding.py` tests padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.dee import DEE, GaussianHead, single_gaussian, unit_length
from deeptalk_jax.models.speech.mel_encoder import MelEncoder
from deeptalk_jax.types import Gaussian


@pytest.fixture(scope="module")
def dee():
    model = DEE(
        speech_encoder=MelEncoder(dim=8, num_mels=10, num_layers=1, num_heads=2, rate_hz=25),
        audio_layers=1,
        motion_layers=1,
        num_heads=2,
        mlp_dim=12,
        motion_dim=8,
        embedding_dim=6,
        max_speech_features=20,
        max_motion_frames=20,
    )
    audio = 0.1 * jax.random.normal(jax.random.key(0), (2, 12 * 640))
    features = jax.random.normal(jax.random.key(1), (2, 12, 5))
    lengths = (jnp.array([12 * 640, 7 * 640 - 100]), jnp.array([12, 7]))
    variables = jax.jit(model.init)(jax.random.key(2), audio, lengths[0], features, lengths[1])
    return model, variables, audio, features, lengths


def test_means_have_unit_length(dee):
    model, variables, audio, features, (samples, frames) = dee
    for gaussian in jax.jit(model.apply)(variables, audio, samples, features, frames):
        np.testing.assert_allclose(jnp.linalg.norm(gaussian.mean, axis=-1), 1.0, rtol=1e-6)
        assert gaussian.log_variance.shape == (2, 6)


def test_speech_beyond_max_length_has_no_effect(dee):
    model, variables, *_ = dee
    audio = 0.1 * jax.random.normal(jax.random.key(5), (1, 24 * 640))
    length = jnp.array([24 * 640])
    encoder = model.clone(speech_encoder=model.speech_encoder.clone(num_layers=0, waveform_eps=None))
    params = {**variables["params"]}
    params["speech_encoder"] = {k: v for k, v in params["speech_encoder"].items() if k != "transformer"}

    @jax.jit
    def embed(waveform):
        return encoder.apply({"params": params}, waveform, length, method=DEE.embed_audio).mean

    # A feature depends on 400 samples of the spectrum and on five inputs of each of two convolutions, which is less
    # than 3 motion frames.
    np.testing.assert_array_equal(embed(audio), embed(audio.at[:, 23 * 640 :].set(0.0)))
    assert not np.allclose(embed(audio), embed(audio.at[:, 15 * 640 :].set(0.0)))


def test_motion_beyond_max_length_is_rejected(dee):
    model, variables, *_ = dee
    with pytest.raises(ValueError, match="sequence of 21 positions is longer than max_length=20"):
        model.apply(variables, jnp.zeros((1, 21, 5)), jnp.array([21]), method=DEE.embed_motion)


def test_unit_length_has_a_finite_gradient_at_zero():
    gradient = jax.grad(lambda x: jnp.sum(unit_length(x)))(jnp.zeros((2, 3)))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(unit_length(jnp.array([3.0, 4.0])), [0.6, 0.8], rtol=1e-6)


def test_reduction_of_a_mixture_to_one_gaussian_by_hand():
    means = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
    log_variances = jnp.log(jnp.array([[[0.1, 0.3], [0.5, 0.2]]]))
    mean, log_variance = single_gaussian(Gaussian(means, log_variances))
    middle = np.sqrt(0.5)
    np.testing.assert_allclose(mean, [[middle, middle]], rtol=1e-6)
    between = (middle**2 + (1 - middle) ** 2) / 2
    np.testing.assert_allclose(jnp.exp(log_variance), [[0.3 + between, 0.25 + between]], rtol=1e-5)


def test_components_of_a_mixture_are_initialised_differently():
    head = GaussianHead(6, 2, 12, "mean", num_components=3)
    x, mask = jax.random.normal(jax.random.key(0), (2, 5, 8)), jnp.ones((2, 5), bool)
    gaussian, _ = jax.jit(head.init_with_output)(jax.random.key(1), x, mask)
    assert gaussian.mean.shape == gaussian.log_variance.shape == (2, 3, 6)
    np.testing.assert_allclose(jnp.linalg.norm(gaussian.mean, axis=-1), 1.0, rtol=1e-6)
    assert np.abs(np.diff(gaussian.mean, axis=1)).max() > 0.1


def test_bfloat16_keeps_parameters_and_moments_in_float32(dee):
    model, variables, audio, features, (samples, frames) = dee
    rough = model.clone(dtype=jnp.bfloat16, speech_encoder=model.speech_encoder.clone(dtype=jnp.bfloat16))
    shapes = jax.eval_shape(rough.init, jax.random.key(0), audio, samples, features, frames)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    side, exact = (
        jax.jit(partial(module.apply, method=DEE.embed_audio))(variables, audio, samples)
        for module in (rough, model)
    )
    assert side.mean.dtype == side.log_variance.dtype == jnp.float32
    for moment, expected in zip(side, exact, strict=True):
        assert 1e-4 < np.sqrt(np.mean(np.square(moment - expected))) < 0.05
