"""Waveform normalisation, length arithmetic and the convolution stack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.speech.frontend import (
    ConvFrontend,
    normalise_waveform,
    prepare_waveform,
    receptive_field_samples,
)

normalise = jax.jit(normalise_waveform, static_argnames="eps")


def test_receptive_field_is_25_ms():
    assert receptive_field_samples() == 400


def num_features(num_samples):
    """Returns the numbers of features that the published stack gives for clips of these lengths."""
    stack, waveform = ConvFrontend(channels=1), jnp.zeros((len(num_samples), 1))
    shapes = jax.eval_shape(stack.init, jax.random.key(0), waveform, num_samples)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    return jax.jit(lambda num_samples: stack.apply(variables, waveform, num_samples)[1])(num_samples)


def test_number_of_features_equals_the_published_table(goldens):
    samples, frames, _ = goldens("wav2vec2")["length_table_samples_n50_n25"]
    np.testing.assert_array_equal(num_features(samples), frames)


def test_short_clips_have_one_feature():
    np.testing.assert_array_equal(num_features(np.array([0, 1, 399, 400, 719])), 1)


@pytest.mark.parametrize("eps", [1e-7, 1e-5])
def test_waveform_is_normalised_over_its_valid_samples(waveform, eps):
    lengths = np.array([5003, 3001], np.int32)
    normed = normalise(jnp.asarray(waveform), jnp.asarray(lengths), eps=eps)
    for row, (clip, length) in enumerate(zip(waveform, lengths, strict=True)):
        clip = clip[:length].astype(np.float64)
        expected = (clip - clip.mean()) / np.sqrt(clip.var() + eps)
        np.testing.assert_allclose(normed[row, :length], expected, rtol=1e-5, atol=2e-6)
    assert not np.any(normed[1, 3001:])


def test_normalisation_equals_that_of_both_published_encoders(goldens, pseudo):
    published = goldens("wav2vec2")
    audio = pseudo.pseudo_audio("deeptalk", 2, 40960)[:1]
    normed = normalise(jnp.asarray(audio), jnp.array([40960]), eps=1e-7)
    published.check("processed_single_first200", normed[:, :200])
    published = goldens("emotion2vec")
    normed = normalise(jnp.asarray(published["audio"]), jnp.full(2, 20480), eps=1e-5)
    published.check("audio_layernorm_first200", normed[:, :200])


def test_silence_and_single_samples_become_zero():
    clips = jnp.array([[0.5, 0.5, 0.5], [0.7, 9.0, 9.0], [9.0, 9.0, 9.0]])
    normed = normalise(clips, jnp.array([3, 1, 0]), eps=1e-7)
    np.testing.assert_array_equal(normed, np.zeros((3, 3)))


def test_without_eps_only_the_padding_is_set_to_zero():
    prepared, lengths = prepare_waveform(jnp.array([[1.0, 2.0, 3.0]]), jnp.array([2]), eps=None)
    np.testing.assert_array_equal(prepared, [[1.0, 2.0, 0.0]])
    np.testing.assert_array_equal(lengths, [2])


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_does_not_change_a_clip(waveform, norm, jit):
    kernels, strides = (10, 3, 2), (5, 8, 8)
    stack = ConvFrontend(10, kernels, strides, norm)
    apply = jit(stack.apply)
    lengths = jnp.array([5003, 3001])
    variables = jit(stack.init)(jax.random.key(0), waveform, lengths)
    garbage = np.where(np.arange(5003) < np.array([[5003], [3001]]), waveform, 50.0).astype(np.float32)
    together, counts = apply(variables, garbage, lengths)
    alone, alone_counts = apply(variables, waveform[1:, :3001], jnp.array([3001]))
    assert counts[1] == alone_counts[0] == alone.shape[1]
    np.testing.assert_allclose(together[1, : counts[1]], alone[0], rtol=1e-5, atol=1e-6)


def test_group_norm_equals_numpy_statistics_over_time(waveform, jit):
    stack = ConvFrontend(channels=6, kernels=(5,), strides=(2,), norm="group")
    variables = jit(stack.init)(jax.random.key(0), waveform, jnp.array([5003, 5003]))
    kernel = np.asarray(variables["params"]["layer_0"]["conv"]["kernel"], np.float64)[:, 0]
    windows = np.lib.stride_tricks.sliding_window_view(waveform[0].astype(np.float64), 5)[::2]
    raw = windows @ kernel
    normed = (raw - raw.mean(0)) / np.sqrt(raw.var(0) + 1e-5)
    features, _ = jit(stack.apply)(variables, waveform, jnp.array([5003, 5003]))
    np.testing.assert_allclose(
        features[0], 0.5 * normed * (1.0 + erf(normed / np.sqrt(2.0))), rtol=1e-5, atol=1e-6
    )


def test_unknown_norm_lists_the_choices(waveform):
    with pytest.raises(ConfigError, match=r"norm='batch' is not one of \('group', 'layer'\)"):
        ConvFrontend(norm="batch").init(jax.random.key(0), waveform, jnp.array([5003, 3001]))


def test_kernels_and_strides_of_different_lengths_are_rejected(waveform):
    with pytest.raises(ConfigError, match=r"kernels=\(3, 3\) and strides=\(2,\) differ in length"):
        ConvFrontend(kernels=(3, 3), strides=(2,)).init(jax.random.key(0), waveform, jnp.array([5, 5]))


@pytest.mark.parametrize("shape", [(5003,), (2, 0), (1, 2, 3)])
def test_waveforms_of_a_wrong_shape_are_rejected(shape):
    with pytest.raises(ValueError, match=r"waveform must be \[b, s\] with at least one sample"):
        prepare_waveform(jnp.zeros(shape), None, eps=1e-7)


def test_num_samples_of_a_wrong_shape_is_rejected(waveform):
    with pytest.raises(ValueError, match=r"num_samples must have shape \(2,\)"):
        prepare_waveform(jnp.asarray(waveform), jnp.array([5003]), eps=1e-7)
