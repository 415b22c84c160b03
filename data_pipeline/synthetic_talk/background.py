"""Sounds behind and before the speech of a clip: hum, rumble, noise, music and breath, none of which moves the lips.

Recordings have them, and a model that has heard silence only opens the mouth for each of them.
"""

import numpy as np

from deeptalk_jax.types import AUDIO_RATE_HZ

RATE = 0.4  # share of the clips that have a background
_KINDS = ("hum", "rumble", "noise", "music", "breath")
_FULL_SCALE = 32767.0
_LOWEST_DBFS, _HIGHEST_DBFS = -60.0, -32.0  # speech is at about -24


def add_background(audio: np.ndarray, speech_start_s: float, rng: np.random.Generator) -> np.ndarray:
    """Adds a random background to a share `RATE` of the clips.

    Args:
        audio: `[s]` int16 samples at 16 kHz.
        speech_start_s: Time at which the speech begins; a breath ends there.
        rng: Random generator of everything in the background.

    Returns:
        `[s]` int16 samples.
    """
    if rng.random() >= RATE:
        return audio
    kind = _KINDS[rng.integers(len(_KINDS))]
    level = 10 ** (rng.uniform(_LOWEST_DBFS, _HIGHEST_DBFS) / 20)
    sound = _SOUNDS[kind](len(audio), speech_start_s, rng)
    sound *= level / max(float(np.sqrt(np.mean(sound[sound != 0] ** 2))) if np.any(sound) else 1.0, 1e-9)
    return np.clip(np.round(audio + sound * _FULL_SCALE), -32768, 32767).astype(np.int16)


def _tones(
    frequencies_hz: np.ndarray, strengths: np.ndarray, num_samples: int, phases: np.ndarray
) -> np.ndarray:
    time_s = np.arange(num_samples) / AUDIO_RATE_HZ
    return strengths @ np.sin(2 * np.pi * frequencies_hz[:, None] * time_s + phases[:, None])


def _shaped_noise(num_samples: int, power: float, lowest_hz: float, highest_hz: float, rng) -> np.ndarray:
    """Draws noise whose amplitude falls with the given power of the frequency, within a band."""
    frequencies = np.fft.rfftfreq(num_samples, 1 / AUDIO_RATE_HZ)
    shape = np.where((frequencies >= lowest_hz) & (frequencies <= highest_hz), 1.0, 0.0)
    shape = shape / np.maximum(frequencies, lowest_hz) ** power
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(num_samples)) * shape, num_samples)


def _hum(num_samples: int, _: float, rng: np.random.Generator) -> np.ndarray:
    """The mains: 50 or 60 Hz with harmonics."""
    harmonics = np.arange(1, 7)
    strengths = rng.uniform(0.2, 1.0, 6) / harmonics
    return _tones(rng.choice((50.0, 60.0)) * harmonics, strengths, num_samples, rng.uniform(0, 6.3, 6))


def _rumble(num_samples: int, _: float, rng: np.random.Generator) -> np.ndarray:
    """Traffic and wind: noise below 60 to 200 Hz."""
    return _shaped_noise(num_samples, 1.0, 8.0, rng.uniform(60.0, 200.0), rng)


def _noise(num_samples: int, _: float, rng: np.random.Generator) -> np.ndarray:
    """A room or a ventilator: noise that falls by 0 to 6 dB per octave."""
    return _shaped_noise(num_samples, rng.uniform(0.0, 1.0), 60.0, rng.uniform(3000.0, 7800.0), rng)


def _music(num_samples: int, _: float, rng: np.random.Generator) -> np.ndarray:
    """Chords of three notes with harmonics, one after the other, each of which fades."""
    sound = np.zeros(num_samples)
    start = 0
    while start < num_samples:
        length = min(int(rng.uniform(0.25, 1.2) * AUDIO_RATE_HZ), num_samples - start)
        root_hz = 110.0 * 2 ** (rng.integers(0, 25) / 12)
        notes_hz = root_hz * 2 ** (np.array([0, rng.choice((3, 4)), 7]) / 12)
        frequencies_hz = np.concatenate([notes_hz * harmonic for harmonic in (1, 2, 3)])
        strengths = np.repeat([1.0, 0.5, 0.25], 3)
        chord = _tones(frequencies_hz, strengths, length, rng.uniform(0, 6.3, 9))
        sound[start : start + length] = chord * np.exp(-3.0 * np.arange(length) / AUDIO_RATE_HZ)
        start += length
    return sound


def _breath(num_samples: int, speech_start_s: float, rng: np.random.Generator) -> np.ndarray:
    """Breathing in just before the speech: a burst of noise of 0.2 to 0.7 s."""
    sound = np.zeros(num_samples)
    stop = int(speech_start_s * AUDIO_RATE_HZ)
    length = min(int(rng.uniform(0.2, 0.7) * AUDIO_RATE_HZ), stop)
    if length > 1:
        burst = _shaped_noise(length, 0.3, 300.0, 5000.0, rng)
        sound[stop - length : stop] = burst * np.hanning(length)
    return sound


_SOUNDS = {"hum": _hum, "rumble": _rumble, "noise": _noise, "music": _music, "breath": _breath}
