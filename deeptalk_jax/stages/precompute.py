"""What frozen networks hear in every training window, computed once and kept on disk.

`train.py --precompute_features=DIR`. Windows must be known beforehand, so the config gives every clip a number of them
(`data.windows_per_clip`). Training from the files equals training without them on the same windows.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from data_pipeline import registry
from data_pipeline.loader import window_batches
from data_pipeline.records import open_split
from data_pipeline.window_features import WindowFeatures, has_features, write_index, write_rows
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import is_remote
from deeptalk_jax.stages.base import Stage
from deeptalk_jax.training.mesh import batch_sharding, make_mesh, replicated, shard_batch
from deeptalk_jax.training.processes import any_process
from deeptalk_jax.training.step import decode_audio

PyTree = Any
_SPLIT = "train"


def precompute_features(stage: Stage, directory: str | os.PathLike) -> WindowFeatures:
    """The features of all training windows of a stage; computed unless the directory has them.

    Every process computes its part of the windows, on its own devices; the directory is one that all of them see.

    Args:
        stage: that has `window_features`.
        directory: for the files.

    Raises:
        UserError: the directory is in an object store, the config names no number of windows, the stage has no such
            features, or the directory holds those of other windows or weights.
    """
    data = stage.config.data
    if is_remote(directory):
        raise UserError(f"--precompute_features={directory}: not in an object store; give a directory")
    if data.windows_per_clip < 1:
        raise UserError(
            f"--precompute_features={directory}: windows must be known beforehand, but "
            f"data.windows_per_clip={data.windows_per_clip}; give --config.data.windows_per_clip=N"
        )
    directory, frozen = Path(directory), stage.constants()
    variables = {"params": stage.pretrained_params()}
    if not jax.eval_shape(stage.window_features, variables, frozen, stage.batch_shapes()):
        raise UserError(f"stage {stage.name!r} has no frozen network that hears the speech")
    num_windows = len(open_split(data.data_dir, data.dataset, _SPLIT, cache_bytes=0)) * data.windows_per_clip
    key = _key(stage.config, num_windows, {"variables": variables, "frozen": frozen})
    if not has_features(directory):
        count, index = jax.process_count(), jax.process_index()
        files = [f"features-{number:05d}-of-{count:05d}.array_record" for number in range(count)]
        first, last = (num_windows * part // count for part in (index, index + 1))
        batches = _computed(stage, variables, frozen, range(first, last))
        shapes = write_rows(directory / files[index], batches)
        any_process(False)  # all have written
        if index == 0:
            write_index(directory, key, shapes, files)
        any_process(False)
    return WindowFeatures(directory, key)


def _computed(
    stage: Stage, variables: PyTree, frozen: PyTree, rows: range
) -> Iterator[dict[str, np.ndarray]]:
    """Features of windows, batch after batch."""
    data = stage.config.data
    mesh = make_mesh(devices=jax.local_devices())
    batch_size = max(data.batch_size // jax.process_count(), 1)
    batch_size += -batch_size % len(mesh.local_devices)
    compute = jax.jit(
        lambda *arguments: stage.window_features(*arguments[:2], decode_audio(arguments[2])),
        out_shardings=batch_sharding(mesh),
    )
    variables, frozen = jax.device_put((variables, frozen), replicated(mesh))
    batches = window_batches(
        data.data_dir,
        data.dataset,
        _SPLIT,
        window_frames=data.window_frames,
        windows_per_clip=data.windows_per_clip,
        seed=stage.config.seed,
        batch_size=batch_size,
        rows=rows,
    )
    with tqdm(total=len(rows), desc="features", unit="window", dynamic_ncols=True) as bar:
        for batch in batches:
            count = min(batch_size, len(rows) - bar.n)
            features = jax.device_get(compute(variables, frozen, shard_batch(batch, mesh)))
            yield {name: array[:count] for name, array in features.items()}
            bar.update(count)


def _key(config: ConfigDict, num_windows: int, variables: PyTree) -> dict[str, Any]:
    """What features depend on."""
    data, digest = config.data, hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return {
        "dataset": registry.find_dataset(data.data_dir, data.dataset).relative_to(data.data_dir).as_posix(),
        "num_windows": num_windows,
        "window_frames": data.window_frames,
        "windows_per_clip": data.windows_per_clip,
        "seed": config.seed,
        "weights": digest.hexdigest(),
    }
