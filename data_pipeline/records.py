"""Random access to the clips of a built dataset.

`open_split` is the entry point; other tools read datasets through it too.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline import registry
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import MOTION_DIM

LABELS = ("emotion", "intensity", "speaker", "identity")
_NEEDED = ("audio", "motion", *LABELS, "clip_name", "text")
DEFAULT_CACHE_BYTES = 2 << 30
# 16-bit audio at 16 kHz; motion in float32 and a viseme in one byte at 25 Hz.
_BYTES_PER_HOUR = 3600 * (2 * 16_000 + 25 * (4 * MOTION_DIM + 1))
_NO_VISEMES = np.zeros(0, np.uint8)


class Record(NamedTuple):
    """A clip as it is stored; see `features.clip_features`.

    Attributes:
        audio: `[s]` int16 samples at 16 kHz.
        motion: `[t, 53]` float32 at 25 Hz.
        labels: Integer label for each name in `LABELS`.
        clip_name: Name of the clip, unique in the dataset.
        text: Spoken words; empty if unknown.
        visemes: `[t]` uint8, index of each frame into `types.VISEME_CLASSES`; empty if unknown.
    """

    audio: np.ndarray
    motion: np.ndarray
    labels: dict[str, int]
    clip_name: str
    text: str
    visemes: np.ndarray = _NO_VISEMES


class Records(Sequence[Record]):
    """The clips of a split, with a bounded cache in memory.

    Records are parsed here and not by TFDS, whose general parser takes longer than reading the file. Parsed clips stay
    in memory until `cache_bytes` are used; further epochs over the embedded corpus then read no files.
    """

    def __init__(self, raw: Sequence[bytes], cache_bytes: int = DEFAULT_CACHE_BYTES):
        """Wraps serialised examples.

        Args:
            raw: One serialised `tf.train.Example` per clip.
            cache_bytes: Bytes of parsed clips to keep in memory; 0 keeps none.
        """
        self._raw = raw
        self._free_bytes = cache_bytes
        self._cache: dict[int, Record] = {}

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index}: expected 0 to {len(self) - 1}")
        with contextlib.suppress(KeyError):
            return self._cache[index]
        record = parse_record(self._raw[index])
        size = record.audio.nbytes + record.motion.nbytes + record.visemes.nbytes
        if size <= self._free_bytes:  # each thread may exceed the limit by one clip, which is harmless
            self._free_bytes -= size
            self._cache[index] = record
        return record


def parse_record(serialised: bytes) -> Record:
    """Parses a serialised example with the features of `features.clip_features`, which store arrays as bytes."""
    features = tf_example_pb2.Example.FromString(serialised).features.feature
    return Record(
        audio=np.frombuffer(features["audio"].bytes_list.value[0], np.int16),
        motion=np.frombuffer(features["motion"].bytes_list.value[0], np.float32).reshape(-1, MOTION_DIM),
        # This list is empty in datasets without phonemes and in those built before visemes were added.
        visemes=np.frombuffer(b"".join(features["visemes"].bytes_list.value), np.uint8),
        labels={name: features[name].int64_list.value[0] for name in LABELS},
        clip_name=features["clip_name"].bytes_list.value[0].decode(),
        text=features["text"].bytes_list.value[0].decode(),
    )


def describe_split(data_dir: str | Path, dataset: str, split: str) -> str:
    """Returns one line with directory, number of clips and length of a split.

    The length follows from the bytes of the records, so it is off by the bytes of names and texts, about 1 %.

    Raises:
        UserError: See `open_split`.
    """
    directory = registry.find_dataset(data_dir, dataset)
    info = _open_builder(directory).info.splits[split]
    return f"{directory}, {split}: {info.num_examples} clips, about {info.num_bytes / _BYTES_PER_HOUR:.2f} h"


def open_split(
    data_dir: str | Path, dataset: str, split: str, *, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> Records:
    """Opens a split of a built dataset for random access.

    Args:
        data_dir: Root directory of all datasets.
        dataset: Name of the dataset. If it is built in several configurations, the name includes the configuration:
            `synthetic_talk/clips2000_seed0`.
        split: `train`, `validation` or `test`, or a part of one in the notation of TFDS: `train[:100]`.
        cache_bytes: Bytes of parsed clips to keep in memory; 0 keeps none.

    Returns:
        The clips of the split in their fixed order.

    Raises:
        UserError: The dataset or split does not exist, or the split is empty: the message lists what exists. Or one of
            its files is missing, damaged, or in another format: the message names it.
    """
    directory = registry.find_dataset(data_dir, dataset)
    builder = _open_builder(directory)
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    found = ", ".join(f"{name} ({size} clips)" for name, size in sorted(sizes.items()))
    if split.partition("[")[0] not in sizes:
        raise UserError(f"no split {split!r} in {directory}; found: {found}")
    try:
        num_clips = builder.info.splits[split].num_examples
    except (ValueError, AssertionError) as error:
        raise UserError(f"cannot read split {split!r} of {directory}: {error}") from error
    if not num_clips:
        raise UserError(f"split {split!r} of {directory} is empty; found: {found}")
    _check_shards(builder.info.splits[split.partition("[")[0]])
    source = builder.as_data_source(split, deserialize_method=tfds.core.decode.DeserializeMethod.RAW_BYTES)
    return Records(source, cache_bytes)


def _open_builder(directory: Path) -> tfds.core.DatasetBuilder:
    """Opens the description of a dataset.

    Raises:
        UserError: `dataset_info.json` or `features.json` is missing or damaged, or the records have another format or
            other features.
    """
    for name in ("dataset_info.json", "features.json"):
        try:
            json.loads((directory / name).read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{directory / name}: missing or damaged ({error}); copy or build the dataset again"
            ) from error
    try:
        builder = tfds.builder_from_directory(str(directory))
    except Exception as error:  # protobuf, TFDS and importlib raise many types for files of wrong content
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{directory}: dataset_info.json or features.json is damaged ({reason})") from error
    kind = builder.info.file_format
    if kind != tfds.core.FileFormat.ARRAY_RECORD:
        raise UserError(
            f"{directory}: its records are in the format {kind.value}; build it with file_format=array_record"
        )
    missing = [name for name in _NEEDED if name not in builder.info.features]
    if missing:
        raise UserError(
            f"{directory / 'features.json'}: the records lack {', '.join(missing)}; expected the features of "
            "data_pipeline/features.py"
        )
    return builder


def _check_shards(split: tfds.core.SplitInfo) -> None:
    """Opens every file of a split, because a damaged one would otherwise show only when its first clip is read.

    Raises:
        UserError: a file is missing, is cut short, or has another number of clips than `dataset_info.json` says.
    """
    for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
        reader = array_record_module.ArrayRecordReader(str(path))
        if not reader.ok():
            reason = "cut short or damaged" if Path(path).exists() else "missing"
            raise UserError(f"{path}: {reason}; copy or build the dataset again")
        found = reader.num_records()
        if found != length:
            raise UserError(
                f"{path}: {found} clips, expected {length} (dataset_info.json); copy or build it again"
            )
