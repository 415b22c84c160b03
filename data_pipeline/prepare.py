"""Preparing a dataset: nothing is complete until all of it is.

Records are written beside their place and renamed at the end, so that an interrupted build leaves nothing that
looks whole.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

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
    """Builds a dataset unless it is built already, and prints what there is.

    Args:
        dataset: a key of `registry.BUILDERS`.
        data_dir: root directory of all datasets; made if missing.
        num_clips: over all splits.
        seed: of the dataset.
        num_shards: files of each split; None is 4, or as many as the smallest split has clips.
        num_workers: processes; None is one per CPU core.
        overwrite: build again.

    Returns:
        The directory of the dataset.

    Raises:
        UserError: an unknown dataset, a number out of range, a directory that cannot be written.
    """
    factory = registry.builder_factory(dataset)
    if not data_dir:
        raise UserError("--data_dir is not given; expected the root directory of all datasets")
    _check_writable(data_dir)
    num_workers = (os.cpu_count() or 1) if num_workers is None else num_workers
    for name, value, least in (("num_workers", num_workers, 1), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"--{name}={value} is too small; expected at least {least}")
    builder = factory(data_dir=data_dir, num_clips=num_clips, seed=seed, num_workers=num_workers)
    directory = Path(builder.data_dir)
    if directory.exists() and not overwrite:
        print(f"already built: {directory} ({_shards(builder)})")
        return directory
    most_shards = builder.smallest_split_clips
    num_shards = min(_DEFAULT_SHARDS, most_shards) if num_shards is None else num_shards
    if not 1 <= num_shards <= most_shards:
        raise UserError(
            f"--num_shards={num_shards} is not in 1 to {most_shards}, the clips of the smallest split"
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
    """Builds into a temporary directory beside the target, which replaces it at the end."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()  # the builder has its own, with a total
    modes = tfds.GenerateMode
    mode = modes.REUSE_CACHE_IF_EXISTS if overwrite else modes.REUSE_DATASET_IF_EXISTS
    config = tfds.download.DownloadConfig(num_shards=num_shards, download_mode=mode)
    with tempfile.TemporaryDirectory() as nothing:  # TFDS wants a directory for downloads
        builder.download_and_prepare(download_dir=nothing, download_config=config)


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
