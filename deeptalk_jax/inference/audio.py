"""Sounds to mono waveforms at 16 kHz: sound files of any format, and arrays of samples.

Errors name the file and the fault in one line, so that a batch of files can report them.
"""

import math
import os
import re
from pathlib import Path

import numpy as np
import soundfile

from deeptalk_jax.errors import UserError
from deeptalk_jax.types import AUDIO_RATE_HZ, MOTION_RATE_HZ, SAMPLES_PER_FRAME

# A single sound: a sound file, or `[s]` mono samples in [-1, 1].
Sound = str | os.PathLike | np.ndarray

# Below the first rate the speech band is missing; no sound card records above the second.
_RATES_HZ = (1_000, 768_000)
_BLOCK_SAMPLES = 1 << 20
# libsndfile reads the remainder of a truncated file and reports the truncation in its log only.
_SHORT_DATA = re.compile(r"(?:data|SSND) : (\d+) \(should be (\d+)\)")
# Programs that write to a pipe do not know the length and write a placeholder of at least this size.
_STREAMED_BYTES = 0x7FFF_0000


def read_audio(path: str | os.PathLike) -> np.ndarray:
    """Reads a sound file, averages its channels and resamples it to 16 kHz.

    Args:
        path: a sound file of any rate, channel count and sample format that libsndfile reads.

    Returns:
        `[s]` float32 at 16 kHz, nominally in [-1, 1].

    Raises:
        UserError: the file is missing, empty, not a sound file, truncated (which MP3 and OGG do not always show),
            or holds samples that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: the file is empty")
    if path.suffix.lower() == ".raw":
        raise UserError(f"{path}: a headerless sound file does not tell its rate; convert it to .wav")
    try:
        with soundfile.SoundFile(path) as file:
            rate_hz = file.samplerate
            mono = _read_mono(file, path)
            _check_whole(file, path)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path}: not a sound file that libsndfile reads ({error.error_string})") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return to_model_rate(mono, rate_hz, name=str(path))


def read_sound(sound: Sound, rate_hz: int = AUDIO_RATE_HZ) -> np.ndarray:
    """Reads a single sound: a sound file, or mono samples at `rate_hz`.

    Returns:
        `[s]` float32 at 16 kHz.

    Raises:
        UserError: the sound cannot be used, see `read_audio` and `to_model_rate`.
    """
    if isinstance(sound, (str, os.PathLike)):
        return read_audio(sound)
    return to_model_rate(np.asarray(sound), rate_hz)


def _read_mono(file: soundfile.SoundFile, path: Path) -> np.ndarray:
    """Reads the mean over channels `[s]`, in blocks so that all channels are never in memory at once."""
    blocks = [
        block.mean(axis=1, dtype=np.float32)
        for block in file.blocks(_BLOCK_SAMPLES, dtype="float32", always_2d=True)
    ]
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(mono):
        raise UserError(f"{path}: holds no samples")
    return mono


def _check_whole(file: soundfile.SoundFile, path: Path) -> None:
    """Raises `UserError` if the header promises at least one motion frame more than the file holds."""
    found = _SHORT_DATA.search(file.extra_info)
    if not found:
        return
    promised, held = map(int, found.groups())
    held_s = file.frames / file.samplerate
    promised_s = held_s * promised / held
    if promised < _STREAMED_BYTES and promised_s - held_s >= 1 / MOTION_RATE_HZ:
        raise UserError(
            f"{path}: cut short, its header promises {promised_s:.2f} s and it holds {held_s:.2f} s"
        )


def to_model_rate(waveform: np.ndarray, rate_hz: int, *, name: str = "waveform") -> np.ndarray:
    """Checks a mono waveform and resamples it to 16 kHz.

    Args:
        waveform: `[s]` floats, nominally in [-1, 1].
        rate_hz: rate of the waveform, a whole number.
        name: name of the waveform in errors.

    Returns:
        `[ceil(s * 16000 / rate)]` float32.

    Raises:
        UserError: the waveform is empty, has more than one axis, is not of floats or not finite, or the rate is
            impossible.
    """
    lowest, highest = _RATES_HZ
    if not lowest <= rate_hz <= highest or rate_hz != int(rate_hz):
        raise UserError(
            f"{name}: sample rate {rate_hz} Hz is not a whole number between {lowest} and {highest} Hz"
        )
    rate_hz = int(rate_hz)
    waveform = np.asarray(waveform)
    if waveform.dtype.kind != "f":
        raise UserError(f"{name}: expected floats in [-1, 1], got {waveform.dtype}")
    waveform = waveform.astype(np.float32, copy=False)
    if waveform.ndim != 1 or not len(waveform):
        raise UserError(f"{name}: expected [s] mono samples, got an array of shape {waveform.shape}")
    finite = np.isfinite(waveform)
    if not finite.all():
        first = int(np.argmin(finite))
        bad = len(finite) - int(finite.sum())
        raise UserError(
            f"{name}: {bad} samples are not finite, the first at {first / rate_hz:.3f} s (sample {first})"
        )
    if rate_hz == AUDIO_RATE_HZ:
        return waveform
    import scipy.signal  # here, because it takes as long to import as jax

    # The exact ratio, however large its terms: with a rounded one the motion would drift from the sound.
    divisor = math.gcd(AUDIO_RATE_HZ, rate_hz)
    resampled = scipy.signal.resample_poly(waveform, AUDIO_RATE_HZ // divisor, rate_hz // divisor)
    return resampled.astype(np.float32, copy=False)


def num_motion_frames(num_samples: int) -> int:
    """Returns the number of motion frames of a 16 kHz waveform: `ceil(seconds * 25)`."""
    return -(-num_samples // SAMPLES_PER_FRAME)


def duration_s(num_samples: int) -> float:
    """Returns the length of a 16 kHz waveform in seconds."""
    return num_samples / AUDIO_RATE_HZ


def find_audio_files(paths: list[str | os.PathLike]) -> list[Path]:
    """Replaces every directory by the sound files directly in it, sorted by name; files are kept.

    Raises:
        UserError: no path is given, a directory cannot be read, or it holds no sound file, as judged by the
            extensions.
    """
    if not paths:
        raise UserError("no sound file is given; name sound files or directories with --audio=")
    extensions = {f".{name.lower()}" for name in soundfile.available_formats()} | {".oga", ".opus", ".aif"}
    extensions.remove(".raw")  # does not tell its rate
    found = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = sorted(
                file for file in path.iterdir() if file.suffix.lower() in extensions and file.is_file()
            )
        except OSError as error:
            raise UserError(f"{path}: the directory cannot be read ({error.strerror})") from error
        if not inside:
            raise UserError(f"{path}: the directory holds no sound file")
        found.extend(inside)
    return found
