"""Writes frames and sound to an mp4 file with H.264 (yuv420p) and AAC, which all common players support."""

import math
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole

_CONSTANT_RATE_FACTOR = "18"  # visually lossless for smooth pictures
_AUDIO_BITS_PER_S = 128_000
_FALLBACK_RATE_HZ = 48_000
# FFmpeg's names of channel layouts, by the number of channels.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1"}
_AAC_BLOCK = 1024  # samples of an AAC frame
_AAC_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


def write_video(
    path: str | os.PathLike,
    frames: Iterable[np.ndarray],
    *,
    fps: float = 25,
    audio: np.ndarray | None = None,
    audio_rate_hz: int = 16000,
) -> int:
    """Writes an mp4 file. An interrupted call leaves no partial file.

    Args:
        path: file to write, ending in `.mp4`.
        frames: `[height, width, 3]` uint8 RGB pictures of equal size with even sides; may be a generator.
        fps: pictures per second.
        audio: `[s]` or `[s, c]` float32 samples in [-1, 1], cut or padded with silence to the duration of the
            pictures. More than 6 channels are mixed to one.
        audio_rate_hz: sampling rate of `audio`. The sound is resampled to 48 kHz if AAC does not support its rate.

    Returns:
        Number of frames written.

    Raises:
        UserError: The path does not end in `.mp4`, its directory does not exist, or there are no frames.
        ValueError: A frame or the audio does not have the shape and type stated above.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise UserError(f"{path}: videos are written as .mp4; choose a path that ends in .mp4")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the directory {path.parent} does not exist; create it first")
    if audio is not None:
        audio, audio_rate_hz = _prepared_audio(audio, audio_rate_hz)
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise UserError(f"{path}: no frames to write")
    _check_frame(first, first.shape)
    with replace_when_whole(path) as temporary:
        return _encode(temporary, chain([first], stream), first.shape, fps, audio, audio_rate_hz)


def _prepared_audio(audio: np.ndarray, rate_hz: int) -> tuple[np.ndarray, int]:
    """Returns `[s, c]` samples in [-1, 1] with a number of channels and a rate that AAC supports."""
    audio = np.asarray(audio, np.float32)
    if audio.ndim not in (1, 2):
        raise ValueError(f"audio has shape {audio.shape}; expected [s] or [s, c]")
    audio = audio[:, None] if audio.ndim == 1 else audio
    if audio.shape[1] not in _LAYOUTS:
        audio = audio.mean(axis=1, keepdims=True)
    if rate_hz not in _AAC_RATES_HZ:
        import scipy.signal  # here, because it takes as long to import as jax

        divisor = math.gcd(_FALLBACK_RATE_HZ, rate_hz)
        audio = scipy.signal.resample_poly(audio, _FALLBACK_RATE_HZ // divisor, rate_hz // divisor)
        rate_hz = _FALLBACK_RATE_HZ
    return np.clip(np.nan_to_num(audio), -1.0, 1.0), rate_hz


def _check_frame(frame: np.ndarray, shape: tuple[int, ...]) -> None:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != shape:
        raise ValueError(
            f"frame is {frame.dtype} {frame.shape}; expected uint8 [height, width, 3] of equal size"
        )
    if frame.shape[0] % 2 or frame.shape[1] % 2:
        raise ValueError(f"frame is {frame.shape[0]} x {frame.shape[1]} pixels; yuv420p needs even sides")


def _encode(
    path: Path,
    frames: Iterator[np.ndarray],
    shape: tuple[int, ...],
    fps: float,
    audio: np.ndarray | None,
    audio_rate_hz: int,
) -> int:
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = shape[1], shape[0], "yuv420p"
        video.options = {"crf": _CONSTANT_RATE_FACTOR, "preset": "veryfast"}
        sound = None
        if audio is not None:
            sound = container.add_stream("aac", rate=audio_rate_hz, layout=_LAYOUTS[audio.shape[1]])
            sound.bit_rate = _AUDIO_BITS_PER_S * audio.shape[1]
        num_frames = num_samples = 0
        for picture in frames:
            _check_frame(picture, shape)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            container.mux(video.encode(frame))
            num_frames += 1
            if sound is not None:
                # The sound follows its pictures, so that players can stream the file.
                end = int(num_frames * audio_rate_hz / rate) // _AAC_BLOCK * _AAC_BLOCK
                _encode_audio(container, sound, audio, num_samples, end)
                num_samples = max(num_samples, end)
        container.mux(video.encode())
        if sound is not None:
            _encode_audio(container, sound, audio, num_samples, round(num_frames * audio_rate_hz / rate))
            container.mux(sound.encode())
    return num_frames


def _encode_audio(
    container: av.container.OutputContainer, sound: av.AudioStream, audio: np.ndarray, first: int, end: int
) -> None:
    """Encodes samples `first` to `end`; beyond the end of `audio` they are silence."""
    for start in range(first, end, _AAC_BLOCK):
        length = min(_AAC_BLOCK, end - start)
        block = np.zeros((length, audio.shape[1]), np.float32)
        held = audio[start : start + length]
        block[: len(held)] = held
        planes = np.ascontiguousarray(block.T)
        frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout=_LAYOUTS[len(planes)])
        frame.sample_rate, frame.pts, frame.time_base = sound.rate, start, Fraction(1, sound.rate)
        container.mux(sound.encode(frame))
