"""Reading sounds of all kinds, good and bad, as 16 kHz mono."""

import re
import struct
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.audio import (
    duration_s,
    num_motion_frames,
    read_audio,
    to_model_rate,
)


def tone(frequency_hz, seconds, rate_hz, amplitude=0.5):
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (amplitude * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def assert_tone(waveform, frequency_hz, amplitude=0.5):
    """Checks that the middle of a waveform is a pure tone of the given frequency, phase and amplitude."""
    wanted = tone(frequency_hz, len(waveform) / 16_000, 16_000, amplitude)
    middle = slice(400, len(waveform) - 400)
    # Resampling filters ripple by up to 0.3 %.
    np.testing.assert_allclose(waveform[middle], wanted[middle], atol=4e-3 * amplitude + 1e-4)


def test_stereo_44100_becomes_the_mean_of_its_channels(tmp_path):
    left, right = tone(440, 0.7, 44_100, 0.6), tone(440, 0.7, 44_100, 0.2)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 44_100, subtype="FLOAT")
    waveform = read_audio(tmp_path / "a.wav")
    assert waveform.dtype == np.float32 and waveform.shape == (11_200,)
    assert_tone(waveform, 440, 0.4)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_101, 48_000, 48_001, 96_000])
def test_tone_survives_every_rate(rate_hz):
    waveform = to_model_rate(tone(440, 0.5, rate_hz), rate_hz)
    assert len(waveform) == -(-round(0.5 * rate_hz) * 16_000 // rate_hz)
    assert_tone(waveform, 440)


def test_odd_rate_does_not_drift():
    # 20 s at 44 101 Hz: with a ratio wrong by 2e-5, the end would be a third of a period out of phase.
    waveform = to_model_rate(tone(1_000, 20, 44_101), 44_101)
    assert len(waveform) == 320_000
    assert_tone(waveform, 1_000)


def test_frequencies_above_8_khz_are_filtered_out():
    waveform = to_model_rate(tone(12_000, 0.5, 48_000), 48_000)
    assert np.abs(waveform[400:-400]).max() < 2e-3


def test_six_channels_are_averaged(tmp_path):
    channels = np.stack([tone(300, 0.3, 16_000, 0.1 * (index + 1)) for index in range(6)], axis=1)
    soundfile.write(tmp_path / "a.wav", channels, 16_000, subtype="FLOAT")
    np.testing.assert_allclose(
        read_audio(tmp_path / "a.wav"), tone(300, 0.3, 16_000, 0.35), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize(
    ("name", "subtype", "step"),
    [
        ("a.wav", "PCM_U8", 1 / 128),
        ("a.wav", "PCM_16", 1 / 2**15),
        ("a.wav", "PCM_24", 1 / 2**23),
        ("a.wav", "DOUBLE", 1 / 2**23),
        ("a.aiff", "PCM_16", 1 / 2**15),
        ("a.flac", "PCM_24", 1 / 2**23),
    ],
)
def test_sample_formats_are_read_to_their_quantisation_step(tmp_path, name, subtype, step):
    wave = tone(440, 0.2, 16_000)
    soundfile.write(tmp_path / name, wave, 16_000, subtype=subtype)
    np.testing.assert_allclose(read_audio(tmp_path / name), wave, rtol=0, atol=step)


def test_an_ogg_file_keeps_length_and_tone(tmp_path):
    wave = tone(440, 0.5, 16_000)
    soundfile.write(tmp_path / "a.ogg", wave, 16_000)
    waveform = read_audio(tmp_path / "a.ogg")
    assert len(waveform) == len(wave)
    spectrum = np.abs(np.fft.rfft(waveform))
    assert np.argmax(spectrum) == 220  # bins of 2 Hz
    assert np.sqrt(np.mean(waveform**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=0.02)


def test_a_single_sample_is_a_sound(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.float32([0.25]), 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), np.float32([0.25]))
    assert to_model_rate(np.float32([0.25]), 48_000).shape == (1,)
    assert to_model_rate(np.float32([0.25]), 8_000).shape == (2,)
    assert num_motion_frames(1) == 1


def test_16_khz_is_not_resampled():
    wave = np.float32([1, -1, 0, 1e-30])
    np.testing.assert_array_equal(to_model_rate(wave, 16_000), wave)
    np.testing.assert_array_equal(to_model_rate(wave[1:].astype(np.float64), 16_000), wave[1:])


def wav_bytes(samples, *, data_bytes=None):
    """Builds a 16-bit mono wav at 16 kHz with a header that promises `data_bytes` of sound."""
    body = np.asarray(samples, "<i2").tobytes()
    promised = len(body) if data_bytes is None else data_bytes
    header = struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    riff = min(promised + 36, 2**32 - 1)
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + header
        + b"data"
        + struct.pack("<I", promised)
        + body
    )


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("text.wav", b"this is no sound\n" * 20, "text.wav: not sound but text"),
        ("empty.wav", b"", "empty.wav: the file is empty"),
        ("header.wav", wav_bytes([]), "header.wav: holds no samples"),
        ("promise.wav", wav_bytes([], data_bytes=3200), "promise.wav: holds no samples"),
        ("stub.wav", wav_bytes([])[:20], "stub.wav: not a sound file"),
        (
            "cut.wav",
            wav_bytes(np.arange(8_000), data_bytes=32_000),
            "cut.wav: cut short, its header promises 1.00 s and it holds 0.50 s",
        ),
        (
            "rate.raw",
            b"\0" * 3200,
            "rate.raw: a headerless sound file does not tell its rate; convert it to .wav",
        ),
    ],
)
def test_unreadable_files_raise_one_line(tmp_path, name, contents, message):
    path = tmp_path / name
    path.write_bytes(contents)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read_audio(path)
    assert "\n" not in str(raised.value)


def test_missing_files_and_directories_are_rejected(tmp_path):
    for path, fault in ((tmp_path / "none.wav", "no such file"), (tmp_path, "a directory, not a sound file")):
        with pytest.raises(UserError, match=f"{re.escape(str(path))}: {fault}"):
            read_audio(path)


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac"])
def test_truncated_files_are_rejected(tmp_path, name):
    path = tmp_path / name
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_audio(path)


@pytest.mark.parametrize("promised", [0x7FFF_FFFF, 0xFFFF_FFFF, 16_004])
def test_headers_with_placeholder_lengths_are_accepted(tmp_path, promised):
    # Pipes write a placeholder; some recorders count a few bytes too many.
    samples = np.arange(8_000)
    (tmp_path / "a.wav").write_bytes(wav_bytes(samples, data_bytes=promised))
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav") * 2**15, samples)


def test_samples_that_are_not_finite_are_located(tmp_path):
    wave = np.zeros(16_000, np.float32)
    wave[[5_000, 5_001, 7_000]] = np.nan, np.inf, -np.inf
    message = "3 samples are not finite, the first at 0.312 s (sample 5000)"
    with pytest.raises(UserError, match=re.escape(f"waveform: {message}")):
        to_model_rate(wave, 16_000)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    with pytest.raises(UserError, match=re.escape(f"a.wav: {message}")):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (
            np.zeros((100, 9), np.float32),
            "expected samples [s], or with few channels, got an array of shape (100, 9)",
        ),
        (np.float32(0.5), "expected samples [s], or with few channels, got an array of shape ()"),
        (np.zeros(0, np.float32), "expected samples [s], or with few channels, got an array of shape (0,)"),
        (np.zeros(100, bool), "expected float or integer samples, got bool"),
        ([[1.0, 2.0], [3.0]], "expected an array of samples, got lists of different lengths"),
    ],
)
def test_arrays_of_another_shape_or_type_are_rejected(waveform, message):
    with pytest.raises(UserError, match=re.escape(message)):
        to_model_rate(waveform, 16_000)


@pytest.mark.parametrize("rate_hz", [0, 8, 999, 768_001, -16_000, 44_100.5, float("nan")])
def test_impossible_sample_rates_are_rejected(rate_hz):
    message = f"sample rate {rate_hz} Hz is not a whole number between 1000 and 768000 Hz"
    # The rate is checked before the NaN, whose time would divide by zero.
    with pytest.raises(UserError, match=re.escape(message)):
        to_model_rate(np.float32([np.nan, 0.0]), rate_hz)


def test_an_impossible_sample_rate_of_a_file_is_rejected(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8)
    with pytest.raises(UserError, match=r"a.wav: sample rate 8 Hz"):
        read_audio(tmp_path / "a.wav")


def test_motion_frames_are_seconds_times_25_rounded_up():
    generator = np.random.default_rng(0)
    rates = [1_000, 8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000]
    for rate_hz in rates:
        lengths = {1, 2, rate_hz // 25, rate_hz // 25 + 1, rate_hz, *generator.integers(1, 3 * rate_hz, 3)}
        for length in map(int, lengths):
            seconds = Fraction(length, rate_hz)
            resampled = to_model_rate(np.zeros(length, np.float32), rate_hz)
            assert num_motion_frames(len(resampled)) == -(-seconds * 25 // 1), (rate_hz, length)
            assert 0 <= duration_s(len(resampled)) - seconds < 1 / 16_000
