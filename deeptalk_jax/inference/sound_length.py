"""Detects uncompressed sound files that were cut short, by the length in their header.

libsndfile and FFmpeg read the remainder of a cut file and report success, so the header is read a second time here.
Programs that write into a pipe do not know the length in advance and write a placeholder, which is not a promise.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from deeptalk_jax.errors import UserError
from deeptalk_jax.types import MOTION_RATE_HZ

_PLACEHOLDER_RATIO = (
    1_000  # a length above this multiple of the bytes present is a placeholder, not a truncation
)
_NEAR_LIMIT = 1 << 16  # some writers subtract the size of the header from the largest value of the field
_ROUND_DECIMAL, _ROUND_BINARY = 1_000_000, 1 << 20
_NIST_HEADER_BYTES = 1_024
_W64_HEADER_BYTES = 24  # a GUID of 16 bytes, then the size of the chunk including this header
_MAX_CHUNKS = 10_000  # limits the search in damaged files


class DataChunk(NamedTuple):
    """Size of the samples of a file, according to its header and in fact.

    Attributes:
        promised: bytes that the header promises; None for a placeholder.
        present: bytes from the first sample to the end of the file.
    """

    promised: int | None
    present: int

    @property
    def missing_share(self) -> float:
        """Share of the promised bytes that are missing from the file; 0 for a whole file."""
        if self.promised is None or self.promised <= self.present:
            return 0.0
        return 1.0 - self.present / self.promised


def read_data_chunk(file: BinaryIO) -> DataChunk | None:
    """Finds the samples of a WAV, RF64, Wave64, AIFF, 8SVX, AU, CAF, NIST SPHERE or VOC file.

    Args:
        file: an open file at any position.

    Returns:
        The data chunk, or None for another container or a header without one.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    magic = file.read(12)
    for prefix, reader in _READERS.items():
        if magic.startswith(prefix):
            try:
                found = reader(file, size)
            except (struct.error, ValueError, UnicodeDecodeError):
                return None
            return found and _judged(*found)
    return None


def _judged(promised: int, start: int, size: int, field_bits: int) -> DataChunk:
    present = max(size - start, 0)
    return DataChunk(None if _is_placeholder(promised, present, field_bits) else promised, present)


def _is_placeholder(promised: int, present: int, field_bits: int) -> bool:
    """Whether a length is one that programs write in advance: zero, a round number, or the largest of its field."""
    if promised <= 0 or promised > _PLACEHOLDER_RATIO * present:
        return True
    limits = (1 << field_bits, 1 << (field_bits - 1))
    if any(abs(limit - promised) <= _NEAR_LIMIT for limit in limits):
        return True
    return promised > present and (promised % _ROUND_DECIMAL == 0 or promised % _ROUND_BINARY == 0)


def _chunks(file: BinaryIO, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, size and start of the contents of each chunk of a RIFF or FORM file, padded to 2 bytes."""
    position = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(8)
        if len(header) < 8:
            return
        name, size = header[:4], struct.unpack(f"{order}I", header[4:])[0]
        yield name, size, position + 8
        position += 8 + size + size % 2


# Each reader below takes a file and its size. It returns the length in the header, the start of the samples, the size
# of the file and the bits of the length field; or None if the file has no samples.


def _iff(order: str, names: tuple[bytes, ...]) -> Callable[[BinaryIO, int], tuple[int, int, int, int] | None]:
    """Returns a reader of RIFF (order "<") or FORM (order ">") files with samples in a chunk of one of these names."""

    def read(file: BinaryIO, size: int) -> tuple[int, int, int, int] | None:
        long_size = None
        for name, length, start in _chunks(file, order):
            if name == b"ds64":  # RF64: the field of the data chunk itself has its largest value
                file.seek(start + 8)
                long_size = struct.unpack("<Q", file.read(8))[0]
            if name in names:
                return (length, start, size, 32) if long_size is None else (long_size, start, size, 64)
        return None

    return read


def _wave64(file: BinaryIO, size: int) -> tuple[int, int, int, int] | None:
    position = 40  # GUID "riff", its size, GUID "wave"
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(_W64_HEADER_BYTES)
        if len(header) < _W64_HEADER_BYTES:
            return None
        length = struct.unpack("<Q", header[16:])[0]
        if header.startswith(b"data"):
            return length - _W64_HEADER_BYTES, position + _W64_HEADER_BYTES, size, 64
        if length < _W64_HEADER_BYTES:
            return None
        position += length + -length % 8
    return None


def _au(order: str) -> Callable[[BinaryIO, int], tuple[int, int, int, int]]:
    def read(file: BinaryIO, size: int) -> tuple[int, int, int, int]:
        file.seek(4)
        start, length = struct.unpack(f"{order}II", file.read(8))
        return length, start, size, 32

    return read


def _caf(file: BinaryIO, size: int) -> tuple[int, int, int, int] | None:
    position = 8
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(12)
        if len(header) < 12:
            return None
        length = struct.unpack(">q", header[4:])[0]
        if header.startswith(b"data"):
            return length - 4, position + 16, size, 64  # an edit count of 4 bytes precedes the samples
        if length < 0:
            return None
        position += 12 + length
    return None


def _nist(file: BinaryIO, size: int) -> tuple[int, int, int, int] | None:
    file.seek(0)
    fields = {}
    for line in file.read(_NIST_HEADER_BYTES).decode("ascii").splitlines():
        words = line.split(maxsplit=2)
        if len(words) == 3:
            fields[words[0]] = words[2]
    names = ("sample_count", "channel_count", "sample_n_bytes")
    if not all(name in fields for name in names):
        return None
    count, channels, width = (int(fields[name]) for name in names)
    return count * channels * width, _NIST_HEADER_BYTES, size, 64


def _voc(file: BinaryIO, size: int) -> tuple[int, int, int, int] | None:
    file.seek(20)
    position = struct.unpack("<H", file.read(2))[0]
    promised, first = 0, None
    for _ in range(_MAX_CHUNKS):
        file.seek(position)
        header = file.read(4)
        kind = header[:1]
        if len(header) < 4 or kind == b"\0":
            break
        length = int.from_bytes(header[1:], "little")
        if kind in (b"\1", b"\2", b"\x09"):  # sound data, its continuation, sound data of the new format
            first = position if first is None else first
        promised += 4 + length if first is not None else 0
        position += 4 + length
    return None if first is None else (promised, first, size, 64)


_READERS = {
    b"RIFF": _iff("<", (b"data",)),
    b"RIFX": _iff(">", (b"data",)),
    b"RF64": _iff("<", (b"data",)),
    b"BW64": _iff("<", (b"data",)),
    b"FORM": _iff(">", (b"SSND", b"BODY")),
    b"riff": _wave64,
    b".snd": _au(">"),
    b"dns.": _au("<"),
    b"caff": _caf,
    b"NIST": _nist,
    b"Creative Voi": _voc,
}


def check_length(promised_s: float, held_s: float, name: str) -> None:
    """Raises `UserError` if a header promises at least one motion frame more than the file holds."""
    if promised_s - held_s >= 1 / MOTION_RATE_HZ:
        raise UserError(
            f"{name}: cut short, its header promises {promised_s:.2f} s and it holds {held_s:.2f} s"
        )
