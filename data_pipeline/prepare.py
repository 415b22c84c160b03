"""Building of a dataset on disk, all or nothing.

TFDS writes the records into a temporary directory and renames it at the end, so an interrupted build never leaves a
directory that looks complete.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import logging

from data_pipeline import registry
from deeptalk_jax.errors import UserError

_DEFAULT_SHARDS = 4


def prepare(
    dataset: str,
    data_dir: str,
    *,
    num_clips: int,
    seed: int = 0,
    num_shards: int | None = None,
    num_workers: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Builds a dataset unless it exists already, and prints its directory and size.

    Args:
        dataset: A key of `registry.BUILDERS`.
        data_dir: Root directory of all datasets; created if it does not exist.
        num_clips: Number of clips, summed over all splits.
        seed: Seed of the dataset, at least 0.
        num_shards: Files per split; None means 4, or the number of clips of the smallest split if that is fewer.
        num_workers: Worker processes; None means one per CPU core.
        overwrite: Whether to build the dataset again if it exists.

    Returns:
        The directory of the dataset.

    Raises:
        UserError: The dataset is unknown, a number is out of range, or the directory cannot be written.
    """
    factory = registry.builder_factory(dataset)
    if not data_dir:
        raise UserError("--data_dir is not given; expected the root directory of all datasets")
    _check_writable(data_dir)
    num_workers = (os.cpu_count() or 1) if num_workers is None else num_workers
    for name, value, least in (("num_workers", num_workers, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"--{name}={value}: expected at least {least}")
    with _only_errors_logged():
        builder = factory(data_dir=data_dir, num_clips=num_clips, seed=seed, num_workers=num_workers)
    directory = Path(builder.data_dir)
    if directory.exists() and not overwrite:
        print(f"already built: {directory} ({_shards(builder)})")
        return directory
    most_shards = builder.smallest_split_clips
    num_shards = min(_DEFAULT_SHARDS, most_shards) if num_shards is None else num_shards
    if not 1 <= num_shards <= most_shards:
        raise UserError(
            f"--num_shards={num_shards}: expected 1 to {most_shards}, the number of clips of the smallest split"
        )
    start_s = time.monotonic()
    _download_and_prepare(builder, num_shards, overwrite=overwrite)
    elapsed_s = time.monotonic() - start_s
    speech_s = builder.speech_s
    print(
        f"built {directory}: {builder.info.splits.total_num_examples} clips, {speech_s / 3600:.2f} hours, "
        f"{_shards(builder)}; {elapsed_s:.0f} s, {speech_s / elapsed_s:.0f} x real time"
    )
    return directory


def _download_and_prepare(builder: Any, num_shards: int, *, overwrite: bool) -> None:
    """Runs TFDS, which builds into a temporary directory and moves it to the target at the end."""
    import tensorflow_datasets as tfds

    builder._log_download_bytes = lambda: None  # prints sizes of a download, and nothing is downloaded
    tfds.disable_progress_bar()  # the builder shows a progress bar of its own, which knows the total
    modes = tfds.GenerateMode
    mode = modes.REUSE_CACHE_IF_EXISTS if overwrite else modes.REUSE_DATASET_IF_EXISTS
    config = tfds.download.DownloadConfig(num_shards=num_shards, download_mode=mode)
    with tempfile.TemporaryDirectory() as empty:  # TFDS requires a directory for downloads
        builder.download_and_prepare(download_dir=empty, download_config=config)


@contextmanager
def _only_errors_logged() -> Iterator[None]:
    """Hides the warning of TFDS that a builder has a config of its own, as all builders here have."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_writable(data_dir: str) -> None:
    try:
        Path(data_dir).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise UserError(f"cannot write to --data_dir={data_dir}: {error.strerror or error}") from error


def _shards(builder: Any) -> str:
    splits = sorted(builder.info.splits.items())
    return ", ".join(f"{name} {info.num_examples} clips in {info.num_shards} shards" for name, info in splits)
