"""The forms in which Python code holds a sound, and samples outside [-1, 1]: all become the same waveform."""

import io
import logging

import numpy as np
import pytest
import soundfile

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.audio import read_sound

RATE_HZ = 16_000
INTEGERS = (3_000 * np.sin(np.arange(4_000) / 7)).astype(np.int16)
WAVE = (INTEGERS / 2**15).astype(np.float32)


def wav(samples, subtype="FLOAT"):
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE_HZ, format="WAV", subtype=subtype)
    return stream.getvalue()


@pytest.mark.parametrize(
    "sound",
    [
        wav(WAVE),
        io.BytesIO(wav(WAVE)),
        INTEGERS,
        INTEGERS.astype(np.int32) << 16,
        INTEGERS.astype(np.float32),  # cast without being scaled
        WAVE[None],
        WAVE[:, None],
        np.stack([WAVE, WAVE], axis=1),
        list(WAVE.tolist()),
        (WAVE, RATE_HZ),
        (RATE_HZ, INTEGERS),
        {"array": WAVE, "sampling_rate": RATE_HZ, "path": None},
    ],
    ids=lambda sound: type(sound).__name__,
)
def test_every_form_of_a_sound_gives_the_same_waveform(sound):
    np.testing.assert_array_equal(read_sound(sound), WAVE)


def test_unsigned_bytes_have_their_zero_in_the_middle():
    np.testing.assert_array_equal(read_sound(np.uint8([128, 0, 192])), np.float32([0, -1, 0.5]))


@pytest.mark.parametrize(
    ("peak", "scale"), [(1.5, 2), (6.0, 8), (9.0, 2**15), (2.0**15, 2**15), (1e6, 2**31), (1e12, 2**40)]
)
def test_samples_beyond_1_are_divided_by_a_power_of_two(peak, scale):
    wave = np.float32([peak, -peak / 2, 0])
    np.testing.assert_array_equal(read_sound(wave), wave / scale)


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_the_loudest_channel_is_taken_if_channels_cancel(tmp_path, caplog, noise):
    other = noise * np.random.default_rng(0).normal(size=len(WAVE)) - 0.9 * WAVE
    stereo = np.stack([WAVE, other], axis=1).astype(np.float32)
    (tmp_path / "inverted.wav").write_bytes(wav(stereo))
    for sound in (stereo, tmp_path / "inverted.wav"):
        with caplog.at_level(logging.WARNING, logger="absl"):
            np.testing.assert_array_equal(read_sound(sound), WAVE)
        assert "its channels cancel one another; channel 1 is used" in caplog.text


def test_independent_and_silent_channels_are_averaged():
    generator = np.random.default_rng(0)
    pair = generator.normal(0, 0.1, (2_000, 2)).astype(np.float32)
    np.testing.assert_allclose(read_sound(pair), pair.mean(axis=1), rtol=1e-5, atol=1e-8)
    one_of_six = np.zeros((2_000, 6), np.float32)
    one_of_six[:, 2] = pair[:, 0]
    np.testing.assert_allclose(read_sound(one_of_six), pair[:, 0] / 6, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        ((WAVE, WAVE), "a tuple is a single sound, (samples, rate); for several sounds give a list"),
        ((WAVE, RATE_HZ, 1), "got a tuple of 3 items"),
        ({"audio": WAVE}, "expected the keys array and sampling_rate, got audio"),
        ((WAVE, "16k"), "sample rate 16k Hz is not a whole number"),
        (b"", "sound: the file is empty"),
        (b"no sound at all" * 9, "sound: not sound but text"),
        (b"\x00\x01\x02\x03" * 90, "sound: not a sound file that can be read"),
    ],
)
def test_unusable_forms_are_one_line(sound, message):
    with pytest.raises(UserError) as raised:
        read_sound(sound)
    assert message in str(raised.value) and "\n" not in str(raised.value)
