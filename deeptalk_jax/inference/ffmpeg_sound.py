"""Decodes compressed sound and the sound tracks of videos with FFmpeg (PyAV).

This is a module of its own because PyAV takes long to import, and uncompressed sound does not need it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.sound_length import check_length
from deeptalk_jax.types import MOTION_RATE_HZ

_TAG_BYTES = 1 << 16
# FFmpeg's names of the containers that state their duration; for others FFmpeg estimates it from the file size.
_EXACT_DURATION = ("flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "ape", "wv", "tta", "caf")
_PADDING_S = 0.1  # upper limit of the padding that codecs add at the end
# Largest share of packets that may fail to decode. Joined MP3 files contain tags between their parts.
_MAX_BAD_PACKETS = 0.02
_XING_BYTES = 256  # the Xing tag is within the first bytes of the first MP3 frame
_UNDECODABLE = (
    av.error.InvalidDataError,
    av.error.UndefinedError,
    av.error.UnknownError,
    av.error.PatchWelcomeError,
)


def read_blocks(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the rate in Hz and blocks `[s, c]` of the first sound track, decoded packet by packet.

    Raises:
        UserError: no sound, a file that is cut short or damaged, or a rate that changes.
    """
    promised_frames = _xing_frames(file)
    file.seek(0)
    try:
        with av.open(file, mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                raise UserError(f"{name}: holds no sound track")
            yield from _decoded(container, container.streams.audio[0], promised_frames, name)
    except av.FFmpegError as error:
        raise UserError(
            f"{name}: not a sound file that can be read ({error.strerror}); convert it with "
            f"`ffmpeg -i {Path(name).name} sound.wav`"
        ) from error


def _decoded(container, stream, promised_frames: int | None, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the rate in Hz and a block `[s, c]` per decoded frame, without the padding of the codec at the end."""
    stream.codec_context.options = {"err_detect": "crccheck"}
    resampler = av.AudioResampler(format="fltp")
    waiting, rate_hz, count, packets, bad = None, 0, 0, 0, 0
    for packet in container.demux(stream):
        packets += packet.size > 0
        try:
            frames = [out for frame in packet.decode() for out in resampler.resample(frame)]
        except _UNDECODABLE:
            bad += 1
            continue
        for frame in frames:
            if rate_hz and frame.sample_rate != rate_hz:
                raise UserError(
                    f"{name}: its rate changes from {rate_hz} to {frame.sample_rate} Hz; convert it"
                )
            if waiting is not None:
                yield rate_hz, waiting
            rate_hz, waiting = frame.sample_rate, frame.to_ndarray().T
            count += len(waiting)
    if bad > _MAX_BAD_PACKETS * packets + 1:
        raise UserError(f"{name}: damaged, {bad} of its {packets} packets cannot be decoded")
    if waiting is None:
        return
    promised_s = None
    if stream.duration is not None and stream.time_base is not None:
        promised_s = float(stream.duration * stream.time_base)
    excess = 0 if promised_s is None else count - round(promised_s * rate_hz)
    padded = 0 < excess < min(_PADDING_S * rate_hz, len(waiting))
    yield rate_hz, waiting[: len(waiting) - excess] if padded else waiting
    held_s = count / rate_hz
    if promised_frames is not None and packets + 1 < promised_frames:
        check_length(max(held_s * promised_frames / packets, held_s + 1 / MOTION_RATE_HZ), held_s, name)
    if promised_s is not None and container.format.name in _EXACT_DURATION:
        check_length(promised_s, held_s, name)


def _xing_frames(file: BinaryIO) -> int | None:
    """Returns the number of frames in the Xing tag of an MP3, after its ID3 tag; None if there is no Xing tag."""
    file.seek(0)
    head = file.read(_TAG_BYTES)
    if head.startswith(b"ID3") and len(head) >= 10:
        file.seek(10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)))
        head = file.read(_TAG_BYTES)
    found = re.search(rb"(?:Xing|Info)...([\x00-\xff])(....)", head[:_XING_BYTES], re.DOTALL)
    if not head.startswith(b"\xff") or not found or not found[1][0] & 1:
        return None
    return int.from_bytes(found[2], "big")
