"""Clips from a built dataset to batches: random windows for training, whole clips in order for evaluation.

Windows start on motion frames, so that sample `640 * i` of a window is the first one under its frame `i`.
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
from deeptalk_jax.types import INT16_SCALE, MOTION_DIM, MOTION_RATE_HZ, SAMPLES_PER_FRAME

Batch = dict[str, Any]

_PREFETCH_BATCHES = 8  # how far reader threads are ahead


class Window(NamedTuple):
    """A stretch of a clip, not yet copied.

    Attributes:
        clip: number of the clip in its split.
        record: the clip.
        start_frame: first motion frame.
        features: arrays that were computed for it, by name.
    """

    clip: int
    record: Record
    start_frame: int
    features: Mapping[str, np.ndarray] = MappingProxyType({})


@dataclasses.dataclass(frozen=True)
class _RandomWindow(grain.transforms.RandomMap):
    """Chooses a window of a clip, by its number, that starts on a random frame.

    Grain passes numbers, not records: it looks at every leaf of what it passes, which took most of the time.
    """

    records: Sequence[Record]
    window_frames: int

    def random_map(self, clip: int, rng: np.random.Generator) -> Window:
        record = self.records[clip]
        spare = len(record.motion) - self.window_frames
        return Window(clip, record, int(rng.integers(spare + 1)) if spare > 0 else 0)


@dataclasses.dataclass(frozen=True)
class _OneOfWindows(grain.transforms.RandomMap):
    """Chooses one of the windows that a clip has; see `window_start`."""

    records: Sequence[Record]
    window_frames: int
    windows_per_clip: int
    seed: int
    features: Sequence[Mapping[str, np.ndarray]] | None

    def random_map(self, clip: int, rng: np.random.Generator) -> Window:
        return self.window(clip, int(rng.integers(self.windows_per_clip)))

    def window(self, clip: int, number: int) -> Window:
        """One of the windows of a clip, with its features where there are any."""
        record = self.records[clip]
        start = window_start(len(record.motion) - self.window_frames, self.seed, clip, number)
        if self.features is None:
            return Window(clip, record, start)
        return Window(clip, record, start, self.features[clip * self.windows_per_clip + number])


def window_start(spare_frames: int, seed: int, clip: int, number: int) -> int:
    """First frame of a window of a clip that has several for good: a place drawn once."""
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
    """The windows that `train_loader` with `windows_per_clip` chooses from, in order: all of a clip, then the next's.

    Args:
        data_dir: the root of all datasets.
        dataset: see `records.open_split`.
        split: see `records.open_split`.
        window_frames: length of a window.
        windows_per_clip: how many a clip has.
        seed: of the places.
        batch_size: rows of a batch; the last one is filled up with padding.
        rows: which windows: `clip * windows_per_clip + number`.
    """
    choose = _OneOfWindows(
        open_split(data_dir, dataset, split, cache_bytes=0), window_frames, windows_per_clip, seed, None
    )
    for start in range(0, len(rows), batch_size):
        windows = [choose.window(*divmod(row, windows_per_clip)) for row in rows[start : start + batch_size]]
        yield assemble(windows, window_frames, batch_size)


def assemble(windows: Sequence[Window], num_frames: int, num_rows: int | None = None) -> Batch:
    """A batch of windows, each sample copied once; zero-padded where a clip ends before its window.

    Args:
        windows: what the rows hold.
        num_frames: length of every row.
        num_rows: rows of the batch, by default as many as windows; the others are padding with label -1.

    Returns:
        audio `[b, 640 * num_frames]` int16, motion `[b, num_frames, 53]` float32, viseme `[b, num_frames]` int32 (-1
        in padding and where unknown), and `[b]` int32 num_frames and num_samples (how much of a row is not
        padding), clip, emotion, intensity, speaker, identity; and the windows' features, `[b, ...]`.
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
    window_frames: int | None = None,
    window_s: float | None = None,
    num_processes: int = 1,
    process_index: int = 0,
    num_threads: int = 4,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    unpack_dir: str | Path = "",
    windows_per_clip: int = 0,
    features: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> grain.DatasetIterator:
    """Endless batches of random windows: every clip once an epoch, in a new order with new windows.

    A global batch holds the same clips and windows, row by row, for any number of processes: process `i` of `n` gets
    its `i`-th part, see `process_rows`. The state counts batches, so a run may go on with another number of them.

    Args:
        data_dir: the root of all datasets.
        dataset: see `records.open_split`.
        split: see `records.open_split`.
        batch_size: over all processes.
        seed: of the order and the windows.
        window_frames: length of a window in motion frames; give this or `window_s`.
        window_s: length of a window in seconds, a whole number of frames.
        num_processes: how many hosts share the batches.
        process_index: which of them this is.
        num_threads: reader threads; 0 reads in the caller.
        cache_bytes: how much of the split to keep in memory; 0 reads every clip anew.
        unpack_dir: where to lay the clips out flat, for windows to read their own bytes only; then nothing is kept in
            memory but by the operating system. Empty: windows read whole records.
        windows_per_clip: every window is one of so many of its clip, at places drawn once; 0: it is anywhere.
        features: arrays to add to every row, by `clip * windows_per_clip + number of the window`.

    Returns:
        An iterator of what `assemble` gives, with `b = batch_size / num_processes`; sound is int16, which the training
        step decodes. Its `get_state` (as JSON has it) and `set_state` resume exactly.

    Raises:
        UserError: no such dataset or split, a window longer than every clip, a batch that cannot be shared evenly.
    """
    window_frames = _window_frames(window_frames, window_s)
    source = _open_clips(data_dir, dataset, split, cache_bytes, unpack_dir)
    _check_window_fits(source, window_frames, split)
    choose = _RandomWindow(source, window_frames)
    if windows_per_clip:
        choose = _OneOfWindows(source, window_frames, windows_per_clip, seed, features)
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
    """Whole clips in their fixed order, each once.

    A clip longer than `max_frames` loses its end: it counts with its first `max_frames` frames and the
    samples under them. Rows that fill up the last batch have `num_frames` 0, label -1 and an empty name.

    Args:
        data_dir: the root of all datasets.
        dataset: see `records.open_split`.
        split: see `records.open_split`.
        max_frames: length of every row, in motion frames.
        batch_size: rows of every batch.
        limit: stop after so many clips.

    Yields:
        What `assemble` gives, but audio float32 in [-1, 1), with clip_name (a list of `b` strings) and valid `[b]`
        bool.

    Raises:
        UserError: no such dataset or split, or a size below 1.
    """
    for name, value in (("max_frames", max_frames), ("batch_size", batch_size), ("limit", limit)):
        if value is not None and value < 1:
            raise UserError(f"{name}={value} is too small; expected at least 1")
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


def _window_frames(window_frames: int | None, window_s: float | None) -> int:
    """The window in frames from whichever was given."""
    if (window_frames is None) == (window_s is None):
        raise UserError(f"give one of window_frames and window_s; got {window_frames} and {window_s}")
    if window_frames is None:
        exact = window_s * MOTION_RATE_HZ
        window_frames = round(exact)
        if abs(exact - window_frames) > 1e-6:
            raise UserError(f"window_s={window_s} is not a whole number of frames of {1 / MOTION_RATE_HZ} s")
    if window_frames < 1:
        raise UserError(f"the window has {window_frames} frames; expected at least 1")
    return window_frames


def _open_clips(
    data_dir: str | Path, dataset: str, split: str, cache_bytes: int, unpack_dir: str | Path
) -> Sequence[Record]:
    """The clips of a split as records or laid out flat; arguments as of `train_loader`."""
    if unpack_dir:
        return unpacked_split(data_dir, dataset, split, unpack_dir)
    return open_split(data_dir, dataset, split, cache_bytes=cache_bytes)


def _check_window_fits(source: Sequence[Record], window_frames: int, split: str) -> None:
    """Looks for one clip as long as the window; usually among the first few."""
    longest = 0
    for index in range(len(source)):
        longest = max(longest, len(source[index].motion))
        if longest >= window_frames:
            return
    raise UserError(
        f"a window of {window_frames} frames is longer than every clip of {split!r}: at most {longest} frames"
    )
