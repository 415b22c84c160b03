"""Mel encoder: filters and spectrum, lengths, padding, loudness and invalid fields."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.speech.mel_encoder import (
    WINDOW_SAMPLES,
    MelEncoder,
    fft_size,
    log_mel,
    mel_filterbank,
)

FFT_SIZE = fft_size(WINDOW_SAMPLES)


def test_filters_are_evenly_spaced_in_mel_and_sum_to_one():
    filters = mel_filterbank(20)
    assert filters.shape == (FFT_SIZE // 2 + 1, 20)
    peaks_hz = filters.argmax(0) * 16_000 / FFT_SIZE
    mels = 2595 * np.log10(1 + peaks_hz / 700)
    assert np.abs(np.diff(mels) - np.diff(mels).mean()).max() < 30  # bins are 31 Hz wide
    inside = slice(int(filters[:, 0].argmax()), int(filters[:, -1].argmax()))
    np.testing.assert_allclose(filters[inside].sum(1), 1.0, atol=1e-6)


def test_filters_equal_those_of_transformers():
    audio_utils = pytest.importorskip("transformers.audio_utils")
    theirs = audio_utils.mel_filter_bank(
        FFT_SIZE // 2 + 1, 20, 60.0, 7600.0, 16_000, norm=None, mel_scale="htk"
    )
    np.testing.assert_allclose(mel_filterbank(20), theirs, atol=1e-6)


def test_a_tone_is_loudest_in_its_band_and_frames():
    time = np.arange(3200) / 16_000
    tone = np.where(time >= 0.1, np.sin(2 * np.pi * 1000 * time), 0.0).astype(np.float32)
    spectrum = np.asarray(log_mel(jnp.asarray(tone[None]), 40))[0]
    assert spectrum.shape == (20, 40)
    band = int(mel_filterbank(40)[round(1000 / 16_000 * FFT_SIZE)].argmax())
    assert spectrum[15].argmax() == band
    assert spectrum[5, band] == spectrum[0, band] < spectrum[15, band] - 5


def test_spectrum_with_a_longer_hop_has_fewer_frames():
    waveform = jax.random.normal(jax.random.key(0), (1, 3200))
    # Frame i of the long hop is centred between frames 2 i and 2 i + 1 of the short hop, which is 80 samples later.
    late = jnp.pad(waveform, ((0, 0), (0, 80)))[:, 80:]
    short, long = log_mel(late, 10), log_mel(waveform, 10, hop_samples=320)
    assert long.shape == (1, 10, 10)
    np.testing.assert_allclose(long[:, 1:-1], short[:, 2:-2:2], rtol=1e-4, atol=1e-4)


def test_windows_of_64_ms_resolve_the_harmonics_of_a_voice():
    time = np.arange(3200) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * number * time) for number in range(1, 9)).astype(np.float32)

    def ripple(window_samples):
        spectrum = np.asarray(log_mel(jnp.asarray(voice[None]), 80, window_samples))[0, 10]
        peaks_hz = mel_filterbank(80, window_samples).argmax(0) * 16_000 / fft_size(window_samples)
        on, between = (spectrum[np.abs(peaks_hz - hz).argmin()] for hz in (360, 420))
        return on - between

    assert ripple(1024) > 3.0 > 2 * ripple(WINDOW_SAMPLES)


@pytest.mark.parametrize(
    ("rate_hz", "hop_samples", "samples", "features"),
    [(50, 160, 6400, 20), (25, 160, 6400, 10), (25, 160, 6401, 11), (50, 160, 1, 1), (25, 320, 6401, 11)],
)
def test_number_of_features_is_the_rounded_up_duration(rate_hz, hop_samples, samples, features):
    encoder = MelEncoder(dim=8, num_mels=10, num_heads=2, rate_hz=rate_hz, hop_samples=hop_samples)
    waveform = jax.random.normal(jax.random.key(0), (1, samples))
    out, _ = jax.jit(encoder.init_with_output)(jax.random.key(1), waveform, jnp.array([samples]))
    assert out.values.shape == (1, features, 8)
    assert bool(out.mask.all())
    assert np.isfinite(out.values).all()


def test_padding_does_not_change_a_clip():
    encoder = MelEncoder(dim=8, num_mels=10, num_heads=2, rate_hz=25)
    waveform = jax.random.normal(jax.random.key(0), (2, 6400))
    lengths = jnp.array([6400, 2000])
    variables = jax.jit(encoder.init)(jax.random.key(1), waveform, lengths)
    encode = jax.jit(encoder.apply)
    batch = encode(variables, waveform.at[1, 2000:].set(7.0), lengths)
    alone = encode(variables, waveform[1:, :2000], lengths[1:])
    num = alone.values.shape[1]
    np.testing.assert_array_equal(batch.mask[1], np.arange(10) < num)
    np.testing.assert_allclose(batch.values[1:, :num], alone.values, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(batch.values[1, num:], 0)


def test_features_do_not_depend_on_loudness():
    encoder = MelEncoder(dim=8, num_mels=10, num_heads=2)
    waveform = jax.random.normal(jax.random.key(0), (1, 3200))
    variables = jax.jit(encoder.init)(jax.random.key(1), waveform, jnp.array([3200]))
    encode = jax.jit(encoder.apply)
    quiet, loud = (encode(variables, waveform * gain, jnp.array([3200])).values for gain in (0.1, 1.0))
    np.testing.assert_allclose(quiet, loud, rtol=1e-3, atol=1e-4)


def test_output_is_padded_to_num_frames():
    encoder = MelEncoder(dim=8, num_mels=10, num_heads=2, rate_hz=25)
    waveform = jax.random.normal(jax.random.key(0), (1, 3000))
    initialise = jax.jit(functools.partial(encoder.init_with_output, num_frames=8))
    out, _ = initialise(jax.random.key(1), waveform, jnp.array([3000]))
    assert out.values.shape == (1, 8, 8)
    np.testing.assert_array_equal(out.mask[0], np.arange(8) < 5)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rate_hz": 100}, "rate_hz=100 is not one of .50, 25"),
        ({"window_samples": 80}, "window_samples=80: expected at least hop_samples=160"),
        ({"hop_samples": 200}, "hop_samples=200: expected 320 divided by a power of two"),
        (
            {"hop_samples": 640, "window_samples": 640},
            "hop_samples=640: expected 320 divided by a power of two",
        ),
        ({"hop_samples": 0}, "hop_samples=0: expected 320 divided by a power of two"),
    ],
)
def test_wrong_rates_hops_and_windows_are_rejected(setting, message):
    with pytest.raises(ConfigError, match=message):
        MelEncoder(**setting).init(jax.random.key(0), jnp.zeros((1, 640)), jnp.array([640]))


def test_bands_are_shifted_in_training_only():
    encoder = MelEncoder(dim=8, num_mels=10, num_heads=2, dropout_rate=0.0, max_band_shift=2.0)
    waveform, length = jax.random.normal(jax.random.key(0), (1, 1600)), jnp.array([1600])
    variables = jax.jit(encoder.init)(jax.random.key(1), waveform, length)

    @functools.partial(jax.jit, static_argnames="train")
    def features(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return encoder.apply(variables, waveform, length, train=train, rngs=rngs).values

    np.testing.assert_array_equal(features(0, train=False), features(1, train=False))
    np.testing.assert_array_equal(features(0, train=True), features(0, train=True))
    assert float(jnp.abs(features(0, train=True) - features(1, train=True)).max()) > 1e-2
