"""Sound files of any container to mono samples, with errors that name what a file is and what to do about it.

Two libraries read: libsndfile for uncompressed samples, which it returns bit for bit, and FFmpeg (PyAV) for MP3, Ogg,
FLAC, MP4, WebM and everything else. libsndfile trusts the frame counts of compressed headers, which may be estimates or
damaged; FFmpeg decodes packet by packet, so that every sample comes from the file and memory grows with the sound only.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
import soundfile
from absl import logging

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.sound_length import read_data_chunk
from deeptalk_jax.types import MOTION_RATE_HZ

_BLOCK_FRAMES = 1 << 18
_SNIFFED_BYTES = 1 << 16
# First bytes of FLAC, Ogg and MP3, which libsndfile reads through decoders that trust frame counts.
_COMPRESSED = re.compile(rb"fLaC|OggS|ID3|\xff[\xe2-\xff]")
_OGG_PAGE_BYTES, _OGG_FIRST_PAGE = 27, 2
_UNDECODABLE = (av.error.InvalidDataError, av.error.UndefinedError, av.error.UnknownError, av.error.PatchWelcomeError)
# Containers of FFmpeg whose duration is a promise, not an estimate from the file's size.
_EXACT_DURATION = ("flac", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "ape", "wv", "tta", "caf")
_PADDING_S = 0.1  # codecs pad the end by less
# Share of packets that may fail to decode: joined MP3 files have tags between the parts.
_MAX_BAD_PACKETS = 0.02
# Channels cancel where their mean has less than this share of the power that independent channels would leave.
_CANCELLING_POWER = 0.1
_MAGIC = (
    (rb"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)", "an HTML page"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*", "a picture"),
    (rb"%PDF", "a PDF document"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "an archive; unpack it"),
    (rb"\x89HDF|\x93NUMPY|\x7fELF|\x80[\x02-\x05]", "a data file"),
)


class Sound(NamedTuple):
    """Samples of a sound file.

    Attributes:
        samples: `[s]` float32, one channel, nominally in [-1, 1].
        rate_hz: their rate.
    """

    samples: np.ndarray
    rate_hz: int


def read_sound(file: BinaryIO, name: str) -> Sound:
    """Reads a whole sound file and mixes its channels down.

    Where the channels cancel (a swapped wire inverts one of them) the loudest channel is taken, with a warning.

    Args:
        file: a seekable file object.
        name: what to call it in errors.

    Raises:
        UserError: no sound, no samples, a file that is cut short or damaged, or a kind that tells no rate.
    """
    head = _start(file)
    if not head:
        raise UserError(f"{name}: the file is empty")
    data = read_data_chunk(file)
    read = _reader(file, head, name)
    channels = _Mix()
    rate_hz = 0
    for rate_hz, block in read(file, name):
        channels.add(block)
    mono = channels.mean()
    if not len(mono):
        raise UserError(f"{name}: holds no samples")
    if data is not None:
        held_s = len(mono) / rate_hz
        _check_length(held_s / (1.0 - data.missing_share), held_s, name)
    if channels.cancel:
        logging.warning("%s: its channels cancel one another; channel %d is used", name, channels.loudest + 1)
        blocks = [block[:, channels.loudest] for _, block in read(file, name)]
        mono = np.concatenate(blocks)
    return Sound(mono, rate_hz)


def _start(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(_SNIFFED_BYTES)
    file.seek(0)
    return head


def _reader(file: BinaryIO, head: bytes, name: str):
    """The function that yields `(rate, [s, c] block)`: libsndfile's for uncompressed samples, else FFmpeg's."""
    for pattern, kind in _MAGIC:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            raise UserError(f"{name}: not sound but {kind}")
    if _COMPRESSED.match(head) and not _is_one_vorbis_stream(file):
        return _blocks_of_ffmpeg
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            return _blocks_of_libsndfile if sound.frames > 0 else _blocks_of_ffmpeg
    except (soundfile.SoundFileError, ValueError):  # ValueError: GSM 6.10 and others that cannot be sought
        return _blocks_of_ffmpeg


def _is_one_vorbis_stream(file: BinaryIO) -> bool:
    """Whether an Ogg file holds one Vorbis stream, not several one after the other.

    libsndfile reads the first stream only, but gives its exact length; FFmpeg drops the first samples of each.
    """
    file.seek(0)
    streams = 0
    while (page := file.read(_OGG_PAGE_BYTES))[:4] == b"OggS" and len(page) == _OGG_PAGE_BYTES:
        length = sum(file.read(page[-1]))  # lengths of the segments
        if page[5] & _OGG_FIRST_PAGE:
            streams += 1
            if file.read(length)[:7] != b"\x01vorbis":
                return False
        else:
            file.seek(length, os.SEEK_CUR)
    return streams == 1


class _Mix:
    """Mean over the channels, and what is needed to see whether they cancel."""

    def __init__(self):
        self._mono = []
        self._power = 0.0
        self._channel_power = np.zeros(0)

    def add(self, block: np.ndarray) -> None:
        """Takes a block `[s, c]`."""
        mono = block.mean(axis=1, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            power = np.sum(np.square(block, dtype=np.float64), axis=0)
            self._power += float(np.sum(np.square(mono, dtype=np.float64)))
        if len(power) > len(self._channel_power):
            self._channel_power = np.pad(self._channel_power, (0, len(power) - len(self._channel_power)))
        self._channel_power[: len(power)] += power
        self._mono.append(mono)

    def mean(self) -> np.ndarray:
        """`[s]` mean over the channels."""
        return np.concatenate(self._mono) if self._mono else np.zeros(0, np.float32)

    @property
    def loudest(self) -> int:
        """Number of the channel with the most power."""
        return int(np.argmax(self._channel_power))

    @property
    def cancel(self) -> bool:
        """Whether the mean is far quieter than the mean of independent channels would be."""
        channels = len(self._channel_power)
        independent = float(self._channel_power.sum()) / max(channels, 1) ** 2
        return channels > 1 and np.isfinite(independent) and self._power < _CANCELLING_POWER * independent


def _blocks_of_libsndfile(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    file.seek(0)
    try:
        with soundfile.SoundFile(file) as sound:
            while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield sound.samplerate, block
    except (soundfile.SoundFileError, ValueError) as error:
        raise UserError(f"{name}: damaged or no sound file ({error})") from error


def _blocks_of_ffmpeg(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    exact = _has_xing_frame(_start(file))
    file.seek(0)
    try:
        with av.open(file, mode="r", metadata_errors="ignore") as container:
            if not container.streams.audio or container.streams.audio[0].codec_context is None:
                raise UserError(f"{name}: holds no sound track")
            stream = container.streams.audio[0]
            promised_s = None
            if stream.duration is not None and stream.time_base is not None:
                promised_s = float(stream.duration * stream.time_base)
            exact = exact or container.format.name in _EXACT_DURATION
            yield from _decoded(container, stream, promised_s, exact, name)
    except av.FFmpegError as error:
        raise UserError(
            f"{name}: not a sound file that can be read ({error.strerror}); convert it with "
            f"`ffmpeg -i {Path(name).name} sound.wav`"
        ) from error


def _decoded(container, stream, promised_s: float | None, exact: bool, name: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields `(rate, [s, c] block)` frame by frame; padding of the codec behind the promised end is dropped."""
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
                raise UserError(f"{name}: its rate changes from {rate_hz} to {frame.sample_rate} Hz; convert it")
            if waiting is not None:
                yield rate_hz, waiting
            rate_hz, waiting = frame.sample_rate, frame.to_ndarray().T
            count += len(waiting)
    if bad > _MAX_BAD_PACKETS * packets + 1:
        raise UserError(f"{name}: damaged, {bad} of its {packets} packets cannot be decoded")
    if waiting is None:
        return
    excess = 0 if promised_s is None else count - round(promised_s * rate_hz)
    padded = 0 < excess < min(_PADDING_S * rate_hz, len(waiting))
    yield rate_hz, waiting[: len(waiting) - excess] if padded else waiting
    if exact and promised_s is not None:
        _check_length(promised_s, count / rate_hz, name)


def _has_xing_frame(head: bytes) -> bool:
    """Whether an MP3 begins with the frame that tells its number of frames; others have an estimate only."""
    first = head[: 4 * 1024]
    return any(tag in first for tag in (b"Xing", b"Info", b"VBRI"))


def _check_length(promised_s: float, held_s: float, name: str) -> None:
    """Raises `UserError` where a header promises at least a motion frame more than the file holds."""
    if promised_s - held_s >= 1 / MOTION_RATE_HZ:
        raise UserError(
            f"{name}: cut short, its header promises {promised_s:.2f} s and it holds {held_s:.2f} s"
        )
