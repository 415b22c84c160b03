"""Benchmark: how many training windows per second does the loader deliver, and does training wait for them?

    python -m benchmarks.data --data_dir=outputs/data

The benchmark needs a built dataset (`python -m data_pipeline.build`). It measures `data_pipeline.loader.train_loader`
with int16 audio, as training uses it, in three modes:

* cached: all clips are in memory.
* uncached: no clips are in memory, so each window reads and parses the whole record of its clip.
* unpacked: `data.unpack_dir` is set, so each window reads only its own bytes. The files are read from the page cache,
  because they have just been written.

Rates per core are windows per second of CPU time, summed over all threads. The time that training waits for data comes
from a real run of the mini motion prior (`training.throughput`), without its first logging interval.

The last line is a JSON object with

* `windows_per_s`, `windows_per_s_per_core`: rates of the cached mode; with the suffix `_uncached` or `_unpacked` those
  of the other modes.
* `bytes_per_window`, `bytes_per_window_unpacked`: bytes that a window reads from storage in the uncached and unpacked
  mode.
* `wire_bytes_per_window`: bytes that a window sends to the device.
* `data_wait_fraction`, `steps_per_s`: waiting time as a fraction of the training run, and its speed; null with
  `--steps=0`.
* `peak_bytes`: peak memory of the process.
* `cores`, `threads`, `batch`, `window_frames`: settings.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks.timing import peak_bytes
from configs import motion_prior
from data_pipeline.loader import train_loader
from data_pipeline.records import DEFAULT_CACHE_BYTES
from data_pipeline.registry import find_dataset
from deeptalk_jax.cli import run_tool
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.training.loop import fit
from deeptalk_jax.types import MOTION_DIM, SAMPLES_PER_FRAME

_DATA_DIR = flags.DEFINE_string("data_dir", "outputs/data", "Root directory of all datasets.")
_DATASET = flags.DEFINE_string("dataset", "synthetic_talk", "Name of the dataset to read.")
_BATCH = flags.DEFINE_integer("batch", 256, "Windows per batch.")
_FRAMES = flags.DEFINE_integer("window_frames", 32, "Length of a window in motion frames (25 Hz).")
_THREADS = flags.DEFINE_integer("threads", 2, "Reader threads.")
_SECONDS = flags.DEFINE_float("seconds", 4.0, "Duration of the measurement of each rate, in seconds.")
_STEPS = flags.DEFINE_integer("steps", 60, "Steps of the training run; 0 skips it.")

_LOG_EVERY_STEPS = 10
_BYTES_PER_FRAME = 2 * SAMPLES_PER_FRAME + 4 * MOTION_DIM + 1  # int16 audio, float32 motion, uint8 viseme


def _rates(cache_bytes: int, unpack_dir: str = "") -> tuple[float, float, int]:
    """Returns windows per second, windows per second of CPU time, and bytes of one window in a batch."""
    batches = train_loader(
        _DATA_DIR.value,
        _DATASET.value,
        batch_size=_BATCH.value,
        seed=0,
        window_frames=_FRAMES.value,
        num_threads=_THREADS.value,
        cache_bytes=cache_bytes,
        unpack_dir=unpack_dir,
    )
    # With a cache, the warm-up reads every clip once; without one it fills the buffer of the reader threads.
    num_windows = 2 * _train_clips()[0] if cache_bytes else 10 * _BATCH.value
    for _ in range(-(-num_windows // _BATCH.value)):
        next(batches)
    start, start_cpu, num = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < _SECONDS.value:
        batch = next(batches)
        num += _BATCH.value
    elapsed, elapsed_cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return num / elapsed, num / elapsed_cpu, sum(x.nbytes for x in batch.values()) // _BATCH.value


def _train_clips() -> tuple[int, int]:
    """Returns the number of clips of the training split and the size of its files in bytes."""
    directory = find_dataset(_DATA_DIR.value, _DATASET.value)
    (split,) = (
        split
        for split in json.loads((directory / "dataset_info.json").read_text())["splits"]
        if split["name"] == "train"
    )
    size = sum(path.stat().st_size for path in directory.glob("*-train.array_record-*"))
    return sum(map(int, split["shardLengths"])), size


def _training() -> tuple[float, float]:
    """Trains the mini motion prior; returns the fraction of time it waits for data and its steps per second."""
    config = motion_prior.get_config("variant=mini").unlock()
    config.data.data_dir, config.data.dataset = _DATA_DIR.value, _DATASET.value
    config.data.num_threads, config.log_every_steps = _THREADS.value, _LOG_EVERY_STEPS
    config.num_steps = config.checkpoint_every_steps = _STEPS.value
    config.validate_every_steps = 0  # every row of the log then covers the same number of steps
    with tempfile.TemporaryDirectory() as workdir:
        fit(make_stage(config), config.lock(), workdir)
        lines = (Path(workdir) / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines][1:]  # the first interval includes the start of the loader
    seconds = np.array([_LOG_EVERY_STEPS / row["train/steps_per_s"] for row in rows])
    waits = np.array([row["train/data_wait"] for row in rows])
    return float(np.sum(waits * seconds) / np.sum(seconds)), _LOG_EVERY_STEPS * len(rows) / float(
        seconds.sum()
    )


def _benchmark() -> None:
    windows_per_s, per_core, wire_bytes = _rates(DEFAULT_CACHE_BYTES)
    uncached, uncached_per_core, _ = _rates(0)
    with tempfile.TemporaryDirectory() as unpack_dir:
        unpacked, unpacked_per_core, _ = _rates(0, unpack_dir)
    num_clips, num_bytes = _train_clips()
    wait, steps_per_s = _training() if _STEPS.value else (None, None)
    result = {
        "windows_per_s": windows_per_s,
        "windows_per_s_per_core": per_core,
        "windows_per_s_uncached": uncached,
        "windows_per_s_per_core_uncached": uncached_per_core,
        "bytes_per_window": num_bytes / num_clips,
        "windows_per_s_unpacked": unpacked,
        "windows_per_s_per_core_unpacked": unpacked_per_core,
        "bytes_per_window_unpacked": _FRAMES.value * _BYTES_PER_FRAME,
        "wire_bytes_per_window": wire_bytes,
        "data_wait_fraction": wait,
        "steps_per_s": steps_per_s,
        "peak_bytes": peak_bytes(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": _THREADS.value,
        "batch": _BATCH.value,
        "window_frames": _FRAMES.value,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_tool(_benchmark)
