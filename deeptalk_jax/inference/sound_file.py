"""Reads sound files of any container; errors name the kind of a file that is not sound, and what to do.

libsndfile reads uncompressed samples, which it returns bit for bit. FFmpeg (PyAV) reads MP3, Ogg, FLAC, MP4, WebM and
everything else. libsndfile trusts the frame counts of compressed headers, which may be estimates or
damaged; FFmpeg decodes packet by packet, so that every sample comes from the file and memory grows with the sound only.
"""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.channel_mix import ChannelMix
from deeptalk_jax.inference.sound_length import check_length, read_data_chunk

_BLOCK_FRAMES = 1 << 18
_SNIFFED_BYTES = 1 << 16
# First bytes of FLAC, Ogg and MP3.
_COMPRESSED = re.compile(rb"fLaC|OggS|ID3|\xff[\xe2-\xff]")
_OGG_PAGE_BYTES, _OGG_FIRST_PAGE = 27, 2
_MAGIC = (
    (rb"\s*(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html)", "an HTML page"),
    (rb"version https://git-lfs", "a Git LFS pointer; fetch the file itself with `git lfs pull`"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*", "a picture"),
    (rb"%PDF", "a PDF document"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "an archive; unpack it"),
    (rb"\x89HDF|\x93NUMPY|\x7fELF|\x80[\x02-\x05]", "a data file"),
)


def read_sound_file(file: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    """Reads a whole sound file and mixes its channels down.

    If the channels cancel, the loudest channel is taken, with a warning; see `channel_mix`.

    Args:
        file: a seekable file object.
        name: name of the file in errors.

    Returns:
        `[s]` float32, one channel, nominally in [-1, 1], and its rate in Hz.

    Raises:
        UserError: no sound, no samples, a file that is cut short or damaged, or a kind that tells no rate.
    """
    head = _start(file)
    if not head:
        raise UserError(f"{name}: the file is empty")
    data = read_data_chunk(file)
    read = _reader(file, head, name)
    mix, rates_hz = ChannelMix(), set()
    for block_rate_hz, block in read(file, name):
        mix.add(block)
        rates_hz.add(block_rate_hz)
    mono = mix.mean()
    if not len(mono):
        raise UserError(f"{name}: holds no samples")
    (rate_hz,) = rates_hz
    if data is not None:
        held_s = len(mono) / rate_hz
        check_length(held_s / (1.0 - data.missing_share), held_s, name)
    if mix.cancels(name):
        mono = np.concatenate([block[:, mix.loudest] for _, block in read(file, name)])
    return mono, rate_hz


def read_channels(file: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    """Reads all channels of a sound file that `read_sound_file` can read.

    Returns:
        `[s, c]` float32 as stored, and the rate in Hz. If the number of channels changes, the fewest are kept.
    """
    read = _reader(file, _start(file), name)
    rates_hz, blocks = zip(*read(file, name), strict=True)
    fewest = min(block.shape[1] for block in blocks)
    return np.concatenate([block[:, :fewest] for block in blocks]), rates_hz[0]


def _start(file: BinaryIO) -> bytes:
    file.seek(0)
    head = file.read(_SNIFFED_BYTES)
    file.seek(0)
    return head


def _reader(file: BinaryIO, head: bytes, name: str):
    """Returns the function that yields the rate and blocks `[s, c]` of this file; see the module docstring."""
    for pattern, kind in _MAGIC:
        if re.match(pattern, head, re.IGNORECASE | re.DOTALL):
            raise UserError(f"{name}: not sound but {kind}")
    if _COMPRESSED.match(head) and not _is_one_vorbis_stream(file):
        return _ffmpeg_blocks
    file.seek(0)
    try:
        with soundfile.SoundFile(_SafeSeeks(file)) as sound:
            return _libsndfile_blocks if sound.frames > 0 else _ffmpeg_blocks
    except (soundfile.SoundFileError, ValueError):  # ValueError: files without seeking, such as GSM 6.10
        if _is_text(head):  # a playlist would make FFmpeg open other files
            raise UserError(f"{name}: not sound but text") from None
        return _ffmpeg_blocks


def _is_one_vorbis_stream(file: BinaryIO) -> bool:
    """Returns whether an Ogg file consists of a single Vorbis stream.

    libsndfile reads the first stream only, with its exact length. FFmpeg reads all streams and drops the first samples
    of each.
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


def _is_text(head: bytes) -> bool:
    """Returns whether a file begins with printable characters only."""
    try:
        return all(character.isprintable() or character in "\t\r\n\f" for character in head[:256].decode())
    except UnicodeDecodeError:
        return False


class _SafeSeeks:
    """A file that ignores seeks before its beginning, which libsndfile makes in damaged files.

    An exception inside the callbacks of libsndfile cannot be caught: it would be printed, and reading would continue.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.readinto, self.read, self.tell = file.readinto, file.read, file.tell

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (ValueError, OSError):
            return self._file.tell()


def _libsndfile_blocks(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    file.seek(0)
    try:
        with soundfile.SoundFile(_SafeSeeks(file)) as sound:
            while len(block := sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
                yield sound.samplerate, block
    except (soundfile.SoundFileError, ValueError) as error:
        raise UserError(f"{name}: damaged or no sound file ({error})") from error


def _ffmpeg_blocks(file: BinaryIO, name: str) -> Iterator[tuple[int, np.ndarray]]:
    from deeptalk_jax.inference import (
        ffmpeg_sound,  # takes long to import, and uncompressed sound does not need it
    )

    yield from ffmpeg_sound.read_blocks(file, name)
