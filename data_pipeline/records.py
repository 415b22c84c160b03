"""Random access to the clips of a built dataset."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline import registry
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import MOTION_DIM

LABELS = ("emotion", "intensity", "speaker", "identity")
DEFAULT_CACHE_BYTES = 2 << 30
_NO_VISEMES = np.zeros(0, np.uint8)


class Record(NamedTuple):
    """A clip as it is stored; see `features.clip_features`.

    Attributes:
        audio: `[s]` int16, 16 kHz.
        motion: `[t, 53]` float32.
        labels: the int of each of `LABELS`.
        clip_name: unique in the dataset.
        text: what is said.
        visemes: `[t]` uint8, index into `types.VISEME_CLASSES`; empty where unknown.
    """

    audio: np.ndarray
    motion: np.ndarray
    labels: dict[str, int]
    clip_name: str
    text: str
    visemes: np.ndarray = _NO_VISEMES


class Records(Sequence[Record]):
    """The clips of a split, parsed here because TFDS's general parser takes longer than reading the file.

    Clips are kept in memory once read, until `cache_bytes` are full: an epoch over the embedded corpus then reads
    nothing.
    """

    def __init__(self, raw: Sequence[bytes], cache_bytes: int = DEFAULT_CACHE_BYTES):
        """Wraps serialised examples.

        Args:
            raw: one serialised `tf.train.Example` per clip.
            cache_bytes: how much to keep in memory; 0 keeps nothing.
        """
        self._raw = raw
        self._free_bytes = cache_bytes
        self._cache: dict[int, Record] = {}

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        with contextlib.suppress(KeyError):
            return self._cache[index]
        record = parse_record(self._raw[index])
        size = record.audio.nbytes + record.motion.nbytes + record.visemes.nbytes
        if size <= self._free_bytes:  # threads may overshoot by a clip each, which does no harm
            self._free_bytes -= size
            self._cache[index] = record
        return record


def parse_record(serialised: bytes) -> Record:
    """Parses an example whose arrays are stored as bytes, as `features.clip_features` has them."""
    features = tf_example_pb2.Example.FromString(serialised).features.feature
    return Record(
        audio=np.frombuffer(features["audio"].bytes_list.value[0], np.int16),
        motion=np.frombuffer(features["motion"].bytes_list.value[0], np.float32).reshape(-1, MOTION_DIM),
        # Data sets without phonemes, and those built before records held them, have none.
        visemes=np.frombuffer(b"".join(features["visemes"].bytes_list.value), np.uint8),
        labels={name: features[name].int64_list.value[0] for name in LABELS},
        clip_name=features["clip_name"].bytes_list.value[0].decode(),
        text=features["text"].bytes_list.value[0].decode(),
    )


def open_split(
    data_dir: str | Path, dataset: str, split: str, *, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> Records:
    """Opens a split.

    Args:
        data_dir: the root of all datasets.
        dataset: name, with the configuration where several are built: `synthetic_talk/clips2000_seed0`.
        split: train, validation, test, or a part of one in the notation of TFDS: `train[:100]`.
        cache_bytes: see `Records`.

    Raises:
        UserError: no such dataset or split, or the split is empty; the message lists what exists.
    """
    directory = registry.find_dataset(data_dir, dataset)
    builder = tfds.builder_from_directory(str(directory))
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    found = ", ".join(f"{name} ({size} clips)" for name, size in sorted(sizes.items()))
    if split.partition("[")[0] not in sizes:
        raise UserError(f"no split {split!r} in {directory}; found: {found}")
    try:
        num_clips = builder.info.splits[split].num_examples
    except (ValueError, AssertionError) as error:
        raise UserError(f"cannot read the part {split!r} of {directory}: {error}") from error
    if not num_clips:
        raise UserError(f"split {split!r} of {directory} is empty; found: {found}")
    source = builder.as_data_source(split, deserialize_method=tfds.core.decode.DeserializeMethod.RAW_BYTES)
    return Records(source, cache_bytes)
