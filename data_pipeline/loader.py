"""Batches of clips: random windows for training, and whole clips in order for evaluation.

Every window starts on a motion frame, so that frame `i` of a window begins at its audio sample `640 * i`. Shapes and
rates are those of docs/method.md, section 0.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import grain
import numpy as np

from data_pipeline.process_rows import process_rows
from data_pipeline.records import DEFAULT_CACHE_BYTES, LABELS, Record, open_split
from data_pipeline.unpacked import unpacked_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import INT16_SCALE, MOTION_DIM, SAMPLES_PER_FRAME

Batch = dict[str, Any]

_PREFETCH_BATCHES = 8  # batches that the reader threads prepare in advance


class Window(NamedTuple):
    """A window of a clip; its samples and frames are copied only when `assemble` makes a batch.

    Attributes:
        clip: Index of the clip in its split.
        record: The clip.
        start_frame: First motion frame of the window.
        features: Precomputed arrays of this window, by name.
    """

    clip: int
    record: Record
    start_frame: int
    features: Mapping[str, np.ndarray] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class _RandomWindow(grain.transforms.RandomMap):
    """Maps the index of a clip to a window of it that starts on a random frame.

    The elements of the grain dataset are indices and not records, because grain traverses every leaf of an element,
    which took most of the loading time when the elements were records.
    """

    records: Sequence[Record]
    window_frames: int

    def random_map(self, clip: int, rng: np.random.Generator) -> Window:
        record = self.records[clip]
        spare = len(record.motion) - self.window_frames
        return Window(clip, record, int(rng.integers(spare + 1)) if spare > 0 else 0)


@dataclasses.dataclass(frozen=True)
class _FixedWindow(grain.transforms.RandomMap):
    """Maps the index of a clip to one of its `windows_per_clip` fixed windows; see `window_start`."""

    records: Sequence[Record]
    window_frames: int
    windows_per_clip: int
    seed: int
    features: Sequence[Mapping[str, np.ndarray]] | None

    def random_map(self, clip: int, rng: np.random.Generator) -> Window:
        return self.window(clip, int(rng.integers(self.windows_per_clip)))

    def window(self, clip: int, number: int) -> Window:
        """Returns window `number` of a clip, with its precomputed features if there are any."""
        record = self.records[clip]
        start = window_start(len(record.motion) - self.window_frames, self.seed, clip, number)
        if self.features is None:
            return Window(clip, record, start)
        return Window(clip, record, start, self.features[clip * self.windows_per_clip + number])


def window_start(spare_frames: int, seed: int, clip: int, number: int) -> int:
    """Returns the first frame of a fixed window: a random position that depends on the arguments only.

    Args:
        spare_frames: Frames of the clip minus frames of the window.
        seed: Seed of all window positions.
        clip: Index of the clip in its split.
        number: Number of the window in its clip, from 0.
    """
    if spare_frames <= 0:
        return 0
    return int(np.random.default_rng((seed, clip, number)).integers(spare_frames + 1))


def window_batches(
    data_dir: str | Path,
    dataset: str,
    split: str,
    *,
    window_frames: int,
    windows_per_clip: int,
    seed: int,
    batch_size: int,
    rows: range,
) -> Iterator[Batch]:
    """Yields the fixed windows that `train_loader(windows_per_clip=...)` draws from, in order.

    Args:
        data_dir: Root directory of all datasets.
        dataset: Name of the dataset; see `records.open_split`.
        split: Name of the split; see `records.open_split`.
        window_frames: Length of a window in motion frames.
        windows_per_clip: Number of fixed windows in each clip.
        seed: Seed of the window positions.
        batch_size: Rows per batch; the last batch is filled up with padding rows.
        rows: Which windows to yield. Window `number` of clip `clip` is row `clip * windows_per_clip + number`.

    Yields:
        Batches as `assemble` returns them.
    """
    choose = _FixedWindow(
        open_split(data_dir, dataset, split, cache_bytes=0), window_frames, windows_per_clip, seed, None
    )
    for start in range(0, len(rows), batch_size):
        windows = [choose.window(*divmod(row, windows_per_clip)) for row in rows[start : start + batch_size]]
        yield assemble(windows, window_frames, batch_size)


def assemble(windows: Sequence[Window], num_frames: int, num_rows: int | None = None) -> Batch:
    """Copies windows into one batch, padded with zeros where a clip ends before its window.

    Args:
        windows: The window of each row.
        num_frames: Length of every row in motion frames.
        num_rows: Rows of the batch; None means one per window. Rows without a window are padding: zeros with label -1.

    Returns:
        A dict with

        * audio: `[b, 640 * num_frames]` int16 samples at 16 kHz.
        * motion: `[b, num_frames, 53]` float32.
        * viseme: `[b, num_frames]` int32; -1 in padding and where the viseme is unknown.
        * num_frames, num_samples: `[b]` int32; frames and samples of each row that are not padding.
        * clip, emotion, intensity, speaker, identity: `[b]` int32.
        * the precomputed features of the windows: `[b, ...]` each.
    """
    num_rows = len(windows) if num_rows is None else num_rows
    num_samples = num_frames * SAMPLES_PER_FRAME
    audio = np.zeros((num_rows, num_samples), np.int16)
    motion = np.zeros((num_rows, num_frames, MOTION_DIM), np.float32)
    viseme = np.full((num_rows, num_frames), -1, np.int32)
    lengths = np.zeros((2, num_rows), np.int32)
    labels = {name: np.full(num_rows, -1, np.int32) for name in ("clip", *LABELS)}
    for row, (clip, record, start, _) in enumerate(windows):
        samples = record.audio[start * SAMPLES_PER_FRAME : start * SAMPLES_PER_FRAME + num_samples]
        frames = record.motion[start : start + num_frames]
        visemes = record.visemes[start : start + num_frames]
        audio[row, : len(samples)] = samples
        motion[row, : len(frames)] = frames
        viseme[row, : len(visemes)] = visemes
        lengths[:, row] = len(frames), len(samples)
        labels["clip"][row] = clip
        for name in LABELS:
            labels[name][row] = record.labels[name]
    return {
        "audio": audio,
        "motion": motion,
        "viseme": viseme,
        "num_frames": lengths[0],
        "num_samples": lengths[1],
        **labels,
        **{name: np.stack([window.features[name] for window in windows]) for name in windows[0].features},
    }


def train_loader(
    data_dir: str | Path,
    dataset: str,
    split: str = "train",
    *,
    batch_size: int,
    seed: int,
    window_frames: int,
    num_processes: int = 1,
    process_index: int = 0,
    num_threads: int = 4,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    unpack_dir: str | Path = "",
    windows_per_clip: int = 0,
    window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> grain.DatasetIterator:
    """Returns endless batches of random windows; each epoch has every clip once, in a new order with new windows.

    A global batch holds the same clips and windows, row by row, for any number of processes: process `i` of `n` reads
    the `i`-th part of it (`process_rows`). The state of the iterator counts batches, so a run can resume with another
    number of processes.

    Args:
        data_dir: Root directory of all datasets.
        dataset: Name of the dataset; see `records.open_split`.
        split: Name of the split; see `records.open_split`.
        batch_size: Rows of a global batch, over all processes.
        seed: Seed of the order of the clips and of the window positions.
        window_frames: Length of a window in motion frames, at least 1.
        num_processes: Number of processes that share each batch.
        process_index: Index of this process.
        num_threads: Reader threads; 0 reads in the calling thread.
        cache_bytes: Bytes of the split to keep in memory; 0 reads every clip again.
        unpack_dir: Local directory for the clips in the layout of `unpacked`, in which a window reads only its own
            bytes, and the operating system's page cache replaces `cache_bytes`. Empty to read whole records.
        windows_per_clip: Number of fixed windows in each clip to draw from; 0 draws a new position every time.
        window_features: Precomputed arrays of window `clip * windows_per_clip + number`, to add to its row, or None.

    Returns:
        An iterator of batches as `assemble` returns them, with `b = batch_size / num_processes`. Audio stays int16;
        the training step converts it to floats. `get_state` (a value that JSON can hold) and `set_state` resume the
        iterator exactly.

    Raises:
        UserError: The dataset or split does not exist, the window is longer than every clip, or the processes cannot
            share the batch evenly.
    """
    source = _open_clips(data_dir, dataset, split, cache_bytes, unpack_dir, window_frames)
    choose = _RandomWindow(source, window_frames)
    if windows_per_clip:
        choose = _FixedWindow(source, window_frames, windows_per_clip, seed, window_features)
    windows = grain.MapDataset.source(range(len(source))).seed(seed).shuffle().repeat().random_map(choose)
    batches = process_rows(windows, batch_size, num_processes, process_index).batch(
        batch_size // num_processes,
        drop_remainder=True,
        batch_fn=functools.partial(assemble, num_frames=window_frames),
    )
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=_PREFETCH_BATCHES)
    return iter(batches.to_iter_dataset(options))


def clip_loader(
    data_dir: str | Path,
    dataset: str,
    split: str,
    *,
    max_frames: int,
    batch_size: int,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Returns batches of whole clips in their fixed order, each clip once.

    A clip longer than `max_frames` is cut: only its first `max_frames` frames, and the samples under them, are used.
    The last batch is filled up with padding rows, which have `num_frames` 0, labels -1 and an empty name.

    Args:
        data_dir: Root directory of all datasets.
        dataset: Name of the dataset; see `records.open_split`.
        split: Name of the split; see `records.open_split`.
        max_frames: Length of every row in motion frames.
        batch_size: Rows of every batch.
        limit: Number of clips after which to stop; None means all.

    Returns:
        An iterator of batches as `assemble` returns them, except that audio is float32 in [-1, 1). Two keys are added:
        clip_name (a list of `b` strings) and valid (`[b]` bool, false for padding rows).

    Raises:
        UserError: The dataset or split does not exist, or a size is below 1.
    """
    for name, value in (("max_frames", max_frames), ("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: expected at least 1")
    source = open_split(data_dir, dataset, split, cache_bytes=0)
    num_clips = len(source) if limit is None else min(limit, len(source))
    return _whole_clips(source, num_clips, max_frames, batch_size)


def _whole_clips(
    source: Sequence[Record], num_clips: int, max_frames: int, batch_size: int
) -> Iterator[Batch]:
    for start in range(0, num_clips, batch_size):
        indices = range(start, min(start + batch_size, num_clips))
        clips = [Window(index, source[index], 0) for index in indices]
        batch = assemble(clips, max_frames, batch_size)
        batch["audio"] = batch["audio"] * INT16_SCALE
        batch["clip_name"] = [clip.record.clip_name for clip in clips] + [""] * (batch_size - len(clips))
        batch["valid"] = np.arange(batch_size) < len(clips)
        yield batch


def _open_clips(
    data_dir: str | Path,
    dataset: str,
    split: str,
    cache_bytes: int,
    unpack_dir: str | Path,
    window_frames: int,
) -> Sequence[Record]:
    """Opens the clips of a split as records, or unpacked if `unpack_dir` is given; arguments as in `train_loader`."""
    if unpack_dir:
        source = unpacked_split(data_dir, dataset, split, unpack_dir)
    else:
        source = open_split(data_dir, dataset, split, cache_bytes=cache_bytes)
    _check_window_fits(source, window_frames, split)
    return source


def _check_window_fits(source: Sequence[Record], window_frames: int, split: str) -> None:
    """Raises UserError unless some clip is as long as the window; usually one of the first few is."""
    if window_frames < 1:
        raise UserError(f"window_frames={window_frames}: expected at least 1")
    longest = 0
    for index in range(len(source)):
        longest = max(longest, len(source[index].motion))
        if longest >= window_frames:
            return
    raise UserError(
        f"window_frames={window_frames} is longer than every clip of {split!r}: expected at most {longest}"
    )
