"""Random variation of voices: each effect by hand or by its limit, and one draw per clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.speech import voice_variation as vary
from deeptalk_jax.models.speech.mel_encoder import MelEncoder, without_band_means

KEY = jax.random.key(0)


def test_a_constant_spectrum_stays_constant_when_bands_move():
    x = np.full((5, 3, 20), -1.5, np.float32)
    np.testing.assert_allclose(vary.vary_bands(KEY, x, max_shift=4.0, max_blur=1.0), x, rtol=1e-5)


def test_every_clip_has_its_own_shift_within_the_limit():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (64, 1, 40))
    moved = np.asarray(vary.vary_bands(KEY, ramp, max_shift=3.0, max_blur=0.0)) - ramp
    shift = moved[:, 0, 20]  # the middle band of a ramp changes by the shift
    assert np.abs(shift).max() <= 3.1
    assert len(np.unique(shift)) == 64
    assert shift.min() < -2.0
    assert shift.max() > 2.0


def test_blur_widens_a_peak_and_keeps_its_place():
    peak = np.zeros((32, 1, 41), np.float32)
    peak[:, 0, 20] = 1.0
    blurred = np.asarray(vary.vary_bands(KEY, peak, max_shift=0.0, max_blur=2.0))[:, 0]
    assert np.all(blurred.argmax(-1) == 20)
    assert blurred[:, 20].min() < 0.3 < 0.7 < blurred[:, 20].max()


def test_echoes_follow_an_impulse_and_never_precede_it():
    silence = -20.0
    x = np.full((8, 40, 2), silence, np.float32)
    x[:, 10] = 0.0
    echoed = np.asarray(vary.add_room(KEY, x, max_echo=0.6))
    np.testing.assert_allclose(np.exp(echoed[:, :11]), np.exp(x[:, :11]), atol=1e-8)
    assert np.all(np.diff(echoed[:, 11:26, 0], axis=1) < 0)  # decay
    assert np.exp(echoed[:, 11]).max() < 0.36
    np.testing.assert_allclose(vary.add_room(KEY, x, max_echo=0.0), x, atol=1e-4)


def test_noise_reaches_the_given_share_of_the_clips_and_stays_below_the_speech():
    x = np.full((400, 20, 8), -15.0, np.float32)
    x[:, 5:] = 2.0
    noisy = np.asarray(vary.add_noise(KEY, x, rate=0.3)) - x
    touched = noisy.max(axis=(1, 2)) > 0.5
    assert 0.2 < touched.mean() < 0.4
    assert noisy.min() > -1e-5
    assert np.median(noisy[touched][:, 10:]) < 0.4  # loud frames hardly change


def test_a_telephone_has_neither_low_nor_high_bands():
    x = np.zeros((3, 4, 64), np.float32)
    telephone = np.asarray(vary.add_channel(KEY, x, std=0.0, telephone_rate=1.0))
    assert telephone[:, :, 0].max() < -4.0
    assert telephone[:, :, -1].max() < -4.0
    np.testing.assert_allclose(telephone[:, :, 20], np.log1p(np.exp(-4.6)), rtol=1e-4)


def test_a_response_is_smooth_and_has_the_given_size():
    curves = np.asarray(vary.response(KEY, 2000, 64, std=0.5))
    np.testing.assert_allclose(curves[:, :16].std(), 0.5 * np.sqrt(1 + 4 * 0.5), rtol=0.25)
    assert np.abs(np.diff(curves, axis=1)).max() < 0.6


def test_mean_spectrum_is_removed_whatever_the_channel_and_the_silence():
    rng = np.random.default_rng(0)
    speech = rng.normal(0.0, 1.0, (1, 30, 6)).astype(np.float32)
    channel = rng.normal(0.0, 2.0, 6).astype(np.float32)
    channel -= channel.mean()  # loudness stays the same, so that the weights do
    everything = np.ones((1, 30), bool)
    plain = without_band_means(speech, everything)
    np.testing.assert_allclose(without_band_means(speech + channel + 3.0, everything), plain + 3.0, atol=1e-5)
    silence = np.full((1, 500, 6), -40.0, np.float32)
    longer = jnp.concatenate([speech, silence], axis=1)
    found = without_band_means(longer, np.ones((1, 530), bool))[:, :30]
    np.testing.assert_allclose(found, plain, atol=1e-4)
    padded = without_band_means(longer, np.arange(530)[None] < 30)[:, :30]
    np.testing.assert_allclose(padded, plain, atol=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_the_encoder_varies_voices_in_training_only(train):
    waveform = np.random.default_rng(0).normal(0, 0.1, (2, 6400)).astype(np.float32)
    lengths = np.array([6400, 6400], np.int32)
    plain = MelEncoder(dim=8, num_mels=12, num_heads=2, dropout_rate=0.0)
    varied = plain.clone(max_band_shift=3.0, noise_rate=0.5, response_std=0.5)
    variables = plain.init(jax.random.key(1), waveform, lengths)
    outputs = [
        encoder.apply(variables, waveform, lengths, train=train, rngs={"dropout": KEY}).values
        for encoder in (plain, varied)
    ]
    assert np.allclose(*outputs) is not train
