"""Sounds to mono waveforms at 16 kHz: sound files of any format, and samples in any of the usual containers.

Errors name the file and the fault in one line, so that a batch of files can report them.
"""

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.channel_mix import mix_channels
from deeptalk_jax.inference.sound_file import read_channels, read_sound_file
from deeptalk_jax.types import AUDIO_RATE_HZ, SAMPLES_PER_FRAME

# A single sound, see `read_sound`.
Sound = str | os.PathLike | bytes | BinaryIO | np.ndarray | tuple | Mapping

# Below the first rate the speech band is missing; no sound card records above the second.
_RATES_HZ = (1_000, 768_000)
_MAX_CHANNELS = 8
# Integer samples that were cast to float without being scaled: 16 and 32 bit.
_INTEGER_SCALES = (1 << 15, 1 << 31)
_LOUD_FLOAT = 8.0  # floats up to this peak are loud sound, above it unscaled integers


def read_audio(path: str | os.PathLike) -> np.ndarray:
    """Reads a sound file, or the sound track of a video, mixes its channels down and resamples it to 16 kHz.

    Args:
        path: a file of any rate, channel count and sample format that libsndfile or FFmpeg reads.

    Returns:
        `[s]` float32 at 16 kHz in [-1, 1]; see `to_model_rate`.

    Raises:
        UserError: the file is missing, empty, not a sound file, cut short or damaged, or holds samples that are not
            finite. A cut MP3 without a Xing frame and a cut Ogg file do not show it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: no such file" if not path.is_dir() else f"{path}: a directory, not a sound file"
        )
    if path.suffix.lower() == ".raw":
        raise UserError(f"{path}: a headerless sound file does not tell its rate; convert it to .wav")
    try:
        with path.open("rb") as file:
            mono, rate_hz = read_sound_file(file, str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return to_model_rate(mono, rate_hz, name=str(path))


def read_original(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Reads the channels of a sound file at its own rate, for the sound of a video.

    Args:
        path: a file that `read_audio` can read.

    Returns:
        `[s, c]` float32, scaled into [-1, 1] as in `to_model_rate`, and the rate in Hz.
    """
    with Path(path).open("rb") as file:
        samples, rate_hz = read_channels(file, str(path))
    return _scaled(samples), rate_hz


def read_sound(sound: Sound, rate_hz: int = AUDIO_RATE_HZ) -> np.ndarray:
    """Reads a single sound in any of the usual forms.

    - A path, the contents of a sound file as bytes, or an open file.
    - An array of samples at `rate_hz`: mono `[s]`, or with few channels `[c, s]` or `[s, c]`, floats or integers.
    - A tuple `(samples, rate)` or `(rate, samples)`, as soundfile and scipy return it.
    - A mapping with `array` and `sampling_rate`, as the library datasets returns it.

    Returns:
        `[s]` float32 at 16 kHz.

    Raises:
        UserError: the sound cannot be used, see `read_audio` and `to_model_rate`.
    """
    if isinstance(sound, (str, os.PathLike)):
        return read_audio(sound)
    if isinstance(sound, (bytes, bytearray, memoryview)):
        sound = io.BytesIO(sound)
    if hasattr(sound, "read"):
        name = getattr(sound, "name", None)
        samples, file_rate_hz = read_sound_file(sound, name if isinstance(name, str) else "sound")
        return to_model_rate(samples, file_rate_hz, name="sound")
    if isinstance(sound, Mapping):
        if not {"array", "sampling_rate"} <= sound.keys():
            raise UserError(
                f"sound: expected the keys array and sampling_rate, got {', '.join(map(str, sound))}"
            )
        sound = (sound["array"], sound["sampling_rate"])
    if isinstance(sound, tuple) and any(np.ndim(item) for item in sound):
        sound, rate_hz = _samples_and_rate(sound)
    return to_model_rate(sound, rate_hz)


def _samples_and_rate(pair: tuple) -> tuple[Any, Any]:
    if len(pair) == 2 and not np.ndim(pair[0]):
        pair = pair[::-1]
    if len(pair) != 2 or np.ndim(pair[1]):
        raise UserError(
            "a tuple is a single sound, (samples, rate); for several sounds give a list, "
            f"got a tuple of {len(pair)} items"
        )
    return pair


def to_model_rate(waveform: np.ndarray, rate_hz: int, *, name: str = "waveform") -> np.ndarray:
    """Checks a waveform, mixes it down, scales it into [-1, 1] and resamples it to 16 kHz.

    Integers are scaled by their type. Floats beyond 1 are divided by a power of two: by that of 16 or 32 bit
    integers if they can only be such, else by the smallest one that is enough. Motion does not depend on loudness, but
    sound that is written would be clipped.

    Args:
        waveform: `[s]`, `[c, s]` or `[s, c]` floats in [-1, 1], or integers.
        rate_hz: rate of the waveform, a whole number.
        name: name of the waveform in errors.

    Returns:
        `[ceil(s * 16000 / rate)]` float32.

    Raises:
        UserError: the waveform is empty, has too many axes, is neither of floats nor of integers, or is not finite, or
            the rate is impossible.
    """
    rate_hz = _checked_rate(rate_hz, name)
    waveform = _as_mono_floats(waveform, name)
    finite = np.isfinite(waveform)
    if not finite.all():
        first = int(np.argmin(finite))
        bad = len(finite) - int(finite.sum())
        raise UserError(
            f"{name}: {bad} samples are not finite, the first at {first / rate_hz:.3f} s (sample {first})"
        )
    waveform = _scaled(waveform)
    if rate_hz == AUDIO_RATE_HZ:
        return waveform
    import scipy.signal  # here, because it takes as long to import as jax

    # The exact ratio, however large its terms: with a rounded one the motion would drift from the sound.
    divisor = math.gcd(AUDIO_RATE_HZ, rate_hz)
    resampled = scipy.signal.resample_poly(waveform, AUDIO_RATE_HZ // divisor, rate_hz // divisor)
    return resampled.astype(np.float32, copy=False)


def _checked_rate(rate_hz: int, name: str) -> int:
    lowest, highest = _RATES_HZ
    try:
        whole = int(rate_hz)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != rate_hz or not lowest <= whole <= highest:
        raise UserError(
            f"{name}: sample rate {rate_hz} Hz is not a whole number between {lowest} and {highest} Hz"
        )
    return whole


def _as_mono_floats(waveform: Any, name: str) -> np.ndarray:
    """Returns `[s]` float32 of samples of any number type, with few channels in either order."""
    try:
        waveform = np.asarray(waveform)
    except ValueError as error:
        raise UserError(f"{name}: expected an array of samples, got lists of different lengths") from error
    if waveform.dtype.kind not in "fiu":
        raise UserError(f"{name}: expected float or integer samples, got {waveform.dtype}")
    if waveform.ndim == 2 and 0 < min(waveform.shape) <= _MAX_CHANNELS:
        channels = waveform if waveform.shape[0] <= waveform.shape[1] else waveform.T
        waveform = channels[0] if len(channels) == 1 else mix_channels(_as_floats(channels).T, name)
    if waveform.ndim != 1 or not len(waveform):
        raise UserError(
            f"{name}: expected samples [s], or with few channels, got an array of shape {waveform.shape}"
        )
    return _as_floats(waveform)


def _as_floats(samples: np.ndarray) -> np.ndarray:
    """Scales integers into [-1, 1) by their type; unsigned ones have their zero in the middle."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    bits = 8 * samples.dtype.itemsize
    middle = 2.0 ** (bits - 1) if samples.dtype.kind == "u" else 0.0
    return ((samples.astype(np.float64) - middle) / 2.0 ** (bits - 1)).astype(np.float32)


def _scaled(waveform: np.ndarray) -> np.ndarray:
    """Divides a waveform beyond [-1, 1] by a power of two; see `to_model_rate`."""
    peak = float(np.abs(waveform).max())
    if peak <= 1.0:
        return waveform
    if peak > _LOUD_FLOAT:
        scale = next((scale for scale in _INTEGER_SCALES if peak <= scale), None)
        if scale is not None:
            return waveform / np.float32(scale)
    return np.ldexp(waveform, -int(np.frexp(peak)[1])).astype(np.float32)


def num_motion_frames(num_samples: int) -> int:
    """Returns the number of motion frames of a 16 kHz waveform: `ceil(seconds * 25)`."""
    return -(-num_samples // SAMPLES_PER_FRAME)


def duration_s(num_samples: int) -> float:
    """Returns the length of a 16 kHz waveform in seconds."""
    return num_samples / AUDIO_RATE_HZ
