"""Clips from a built dataset to batches: random windows for training, whole clips in order for evaluation.

Windows start on motion frames, so that sample `640 * i` of a window is the first one under its frame `i`.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from data_pipeline.records import DEFAULT_CACHE_BYTES, LABELS, Record, open_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import MOTION_DIM, MOTION_RATE_HZ, SAMPLES_PER_FRAME

_INT16_SCALE = np.float32(1 / 32768)
Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _RandomWindow(grain.transforms.RandomMap):
    """Cuts a record to a window that starts on a random frame."""

    window_frames: int

    def random_map(self, record: Record, rng: np.random.Generator) -> Batch:
        spare = len(record.motion) - self.window_frames
        start = int(rng.integers(spare + 1)) if spare > 0 else 0
        return cut(record, start, self.window_frames)


def cut(record: Record, start_frame: int, num_frames: int) -> Batch:
    """A window of a clip, zero-padded at the end where the clip is shorter.

    Args:
        record: a record of the dataset.
        start_frame: first motion frame.
        num_frames: length of the window.

    Returns:
        audio `[640 * num_frames]` float32 in [-1, 1], motion `[num_frames, 53]`, num_frames and num_samples
        (how much of them is not padding), viseme `[num_frames]` (-1 in padding and where unknown), emotion,
        intensity, speaker, identity: int32.
    """
    num_samples = num_frames * SAMPLES_PER_FRAME
    start_sample = start_frame * SAMPLES_PER_FRAME
    samples = record.audio[start_sample : start_sample + num_samples]
    frames = record.motion[start_frame : start_frame + num_frames]
    audio = np.zeros(num_samples, np.float32)
    audio[: len(samples)] = samples * _INT16_SCALE
    motion = np.zeros((num_frames, MOTION_DIM), np.float32)
    motion[: len(frames)] = frames
    viseme = np.full(num_frames, -1, np.int32)
    visemes = record.visemes[start_frame : start_frame + num_frames]
    viseme[: len(visemes)] = visemes
    labels = {name: np.int32(record.labels[name]) for name in LABELS}
    lengths = {"num_frames": np.int32(len(frames)), "num_samples": np.int32(len(samples))}
    return {"audio": audio, "motion": motion, "viseme": viseme, **lengths, **labels}


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
    prefetch_batches: int = 8,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
) -> grain.DatasetIterator:
    """Endless batches of random windows: every clip once an epoch, in a new order with new windows.

    The stream over all processes is the same for any number of them: process `i` of `n` gets the elements
    `i::n`, and a global batch holds the same clips and windows however it is divided.

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
        prefetch_batches: how far the threads read ahead.
        cache_bytes: how much of the split to keep in memory; 0 reads every clip anew.

    Returns:
        An iterator of dicts: audio `[b, s]` float32, motion `[b, t, 53]` float32, viseme `[b, t]` int32 (-1 where
        there is none), and `[b]` int32 num_frames, num_samples, emotion, intensity, speaker, identity;
        `b = batch_size / num_processes`. Its `get_state` and `set_state` resume exactly, also through
        `grain.checkpoint.CheckpointSave`.

    Raises:
        UserError: no such dataset or split, a window longer than every clip, a batch that the processes
        cannot share.
    """
    window_frames = _window_frames(window_frames, window_s)
    if not 0 <= process_index < num_processes:
        raise UserError(f"process_index={process_index} is not one of num_processes={num_processes}")
    if batch_size < 1 or batch_size % num_processes:
        raise UserError(f"batch_size={batch_size} cannot be divided over num_processes={num_processes}")
    source = open_split(data_dir, dataset, split, cache_bytes=cache_bytes)
    _check_window_fits(source, window_frames, split)
    windows = (
        grain.MapDataset.source(source).seed(seed).shuffle().repeat().random_map(_RandomWindow(window_frames))
    )
    batches = windows[process_index::num_processes].batch(batch_size // num_processes, drop_remainder=True)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=prefetch_batches)
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
        What `train_loader` gives, with clip_name (a list of `b` strings) and valid `[b]` bool.

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
        records = [source[index] for index in range(start, min(start + batch_size, num_clips))]
        rows = [cut(record, 0, max_frames) for record in records]
        names = [record.clip_name for record in records]
        num_missing = batch_size - len(rows)
        rows += [_empty_row(max_frames)] * num_missing
        batch: Batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        batch["clip_name"] = names + [""] * num_missing
        batch["valid"] = np.arange(batch_size) < len(records)
        yield batch


def _empty_row(num_frames: int) -> Batch:
    labels = dict.fromkeys(LABELS, -1)
    nothing = Record(np.zeros(0, np.int16), np.zeros((0, MOTION_DIM), np.float32), labels, "", "")
    return cut(nothing, 0, num_frames)


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
