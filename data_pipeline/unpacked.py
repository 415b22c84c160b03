"""Uncompressed copy of a split on a local disk, from which a window reads only its own bytes.

A record has to be read, decompressed and parsed as a whole, even for a short window of a long clip. Here the audio of
all clips is concatenated in one file, and so are the motion and the visemes. The files are mapped into memory: nothing
is parsed, and the page cache keeps each page once for all processes of a host. A directory is complete when it has its
index, which is written last.
"""

import fcntl
import itertools
import json
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline import registry
from data_pipeline.records import LABELS, Record, open_split
from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.files import is_remote
from deeptalk_jax.progress import progress_bar
from deeptalk_jax.types import MOTION_DIM

INDEX = "index.json"
# Data type of each file, and shape of one sample or frame in it.
_FILES = {"audio": (np.int16, ()), "motion": (np.float32, (MOTION_DIM,)), "visemes": (np.uint8, ())}


class UnpackedRecords(Sequence[Record]):
    """The clips of an unpacked directory; the arrays of a record are views of the mapped files.

    Args:
        directory: A complete directory.
        index: The content of its index file.
    """

    def __init__(self, directory: Path, index: Mapping[str, Any]):
        self._columns = index["columns"]
        self._arrays, self._starts = {}, {}
        for name, (dtype, shape) in _FILES.items():
            starts = list(itertools.accumulate(self._columns[f"{name}_length"], initial=0))
            self._starts[name] = starts
            self._arrays[name] = _mapped(directory / name, dtype, (starts[-1], *shape))

    def __len__(self) -> int:
        return len(self._columns["clip_name"])

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index}: expected 0 to {len(self) - 1}")
        arrays = {}
        for name, array in self._arrays.items():
            starts = self._starts[name]
            arrays[name] = array[starts[index] : starts[index + 1]]
        return Record(
            **arrays,
            labels={name: self._columns[name][index] for name in LABELS},
            clip_name=self._columns["clip_name"][index],
            text=self._columns["text"][index],
        )


def unpacked_split(data_dir: str | Path, dataset: str, split: str, unpack_dir: str | Path) -> UnpackedRecords:
    """Opens the unpacked copy of a split, and creates it if it is missing, damaged or made from other records.

    One process of a host unpacks; the others wait for it.

    Args:
        data_dir: Root directory of all datasets.
        dataset: Name of the dataset; see `records.open_split`.
        split: Name of the split; see `records.open_split`.
        unpack_dir: Directory on a local disk; the copy is written to a subdirectory.

    Raises:
        ConfigError: `unpack_dir` is in an object store.
        UserError: The dataset or split does not exist, or `unpack_dir` cannot be written.
    """
    if is_remote(unpack_dir):
        raise ConfigError(
            f"data.unpack_dir={unpack_dir}: expected a local directory, because files in an object store cannot be "
            "mapped into memory"
        )
    key = _key(registry.find_dataset(data_dir, dataset), split)
    directory = Path(unpack_dir) / re.sub(r"[^\w.-]+", "_", f"{key['dataset']}-{split}")
    try:
        with _locked(directory):
            index = _read_index(directory, key)
            if index is None:
                index = _unpack(open_split(data_dir, dataset, split, cache_bytes=0), directory, key)
        return UnpackedRecords(directory, index)
    except OSError as error:
        raise UserError(
            f"data.unpack_dir={unpack_dir}: cannot write there ({error.strerror or error})"
        ) from error


def _key(directory: Path, split: str) -> dict[str, Any]:
    """Returns what identifies the records of a split: the names, sizes and modification times of its files."""
    name = split.partition("[")[0]
    files = [(file, file.stat()) for file in sorted(directory.glob(f"*-{name}.array_record-*"))]
    return {
        "dataset": "-".join(directory.parts[-3:]),
        "split": split,
        "files": [[file.name, status.st_size, status.st_mtime_ns] for file, status in files],
    }


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Holds a lock on the directory among the processes of this host; the lock of a dead process is released."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(directory.suffix + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_index(directory: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the index of a directory, or None unless the directory is complete and made from the same records."""
    try:
        index = json.loads((directory / INDEX).read_text())
        sizes = {name: (directory / name).stat().st_size for name in _FILES}
        whole = all(sizes[name] == _num_bytes(index, name) for name in _FILES)
        return index if whole and index["key"] == key else None
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return None


def _num_bytes(index: Mapping[str, Any], name: str) -> int:
    dtype, shape = _FILES[name]
    return sum(index["columns"][f"{name}_length"]) * math.prod(shape) * np.dtype(dtype).itemsize


def _unpack(records: Sequence[Record], directory: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """Writes all files into a temporary directory, moves it to its final name, and returns the index."""
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # a process that was killed may have left one
    columns: dict[str, list] = {
        name: [] for name in ("clip_name", "text", *LABELS, *(f"{name}_length" for name in _FILES))
    }
    temporary.mkdir()
    try:
        with ExitStack() as stack:
            files = {name: stack.enter_context((temporary / name).open("wb")) for name in _FILES}
            for number in progress_bar(range(len(records)), desc=f"unpacking {directory.name}", unit="clip"):
                record = records[number]
                for name, (dtype, _) in _FILES.items():
                    array = getattr(record, name)
                    files[name].write(np.ascontiguousarray(array, dtype).tobytes())
                    columns[f"{name}_length"].append(len(array))
                columns["clip_name"].append(record.clip_name)
                columns["text"].append(record.text)
                for name in LABELS:
                    columns[name].append(int(record.labels[name]))
        index = {"key": dict(key), "columns": columns}
        (temporary / INDEX).write_text(json.dumps(index))
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return index


def _mapped(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    if not shape[0]:  # mmap refuses empty files
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r", shape=shape))
