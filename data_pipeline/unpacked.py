"""Clips of a split laid out flat on a local disk: a window reads its own bytes only, however long its clip is.

A record is read, decompressed and parsed as a whole. Here the sound, the motion and the visemes of all clips stand one
behind the other in a file each, which is mapped into memory: what is read stays in the page cache, once for all
processes of a host, and nothing is parsed. A directory is whole once its index is there.
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
import tqdm

from data_pipeline import registry
from data_pipeline.records import LABELS, Record, open_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import is_remote
from deeptalk_jax.types import MOTION_DIM

INDEX = "index.json"
# Of every file: type of its entries, and shape of a sample or frame.
_FILES = {"audio": (np.int16, ()), "motion": (np.float32, (MOTION_DIM,)), "visemes": (np.uint8, ())}


class UnpackedRecords(Sequence[Record]):
    """The clips of an unpacked directory; their arrays are views of its files.

    Args:
        directory: a whole one.
        index: what stands in its index.
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
            raise IndexError(f"clip {index} of {len(self)}")
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
    """Opens a split, unpacked below `unpack_dir`; unpacks it first where that is not done, or was of other records.

    Processes of one host wait for the one that unpacks.

    Args:
        data_dir: the root of all datasets.
        dataset: see `records.open_split`.
        split: see `records.open_split`.
        unpack_dir: a directory on a local disk.

    Raises:
        UserError: no such dataset or split; a directory in an object store, or one that cannot be written.
    """
    if is_remote(unpack_dir):
        raise UserError(f"data.unpack_dir={unpack_dir}: files there cannot be mapped; give a local directory")
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
            f"data.unpack_dir={unpack_dir}: cannot unpack there ({error.strerror or error})"
        ) from error


def _key(directory: Path, split: str) -> dict[str, Any]:
    """What tells whether unpacked clips are those of a dataset: its files as they are now."""
    name = split.partition("[")[0]
    files = [(file, file.stat()) for file in sorted(directory.glob(f"*-{name}.array_record-*"))]
    return {
        "dataset": "-".join(directory.parts[-3:]),
        "split": split,
        "files": [[file.name, status.st_size, status.st_mtime_ns] for file, status in files],
    }


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process of this host at a time; a process that dies lets go."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(directory.suffix + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_index(directory: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """The index of a directory; None unless it is whole and of these records."""
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
    """Writes the files beside their place, and moves them there."""
    temporary = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    columns: dict[str, list] = {
        name: [] for name in ("clip_name", "text", *LABELS, *(f"{name}_length" for name in _FILES))
    }
    temporary.mkdir()
    try:
        with ExitStack() as stack:
            files = {name: stack.enter_context((temporary / name).open("wb")) for name in _FILES}
            for number in tqdm.tqdm(range(len(records)), desc=f"unpacking {directory.name}", unit="clip"):
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
    if not shape[0]:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, mode="r", shape=shape))
