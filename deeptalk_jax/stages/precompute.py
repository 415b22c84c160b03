"""Precomputes the features of frozen networks for all training windows (`train.py --precompute_features=DIR`).

The windows must be known in advance, so `data.windows_per_clip` gives each clip a fixed number of them. Training from
the files equals training without them on the same windows.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline import registry
from data_pipeline.loader import window_batches
from data_pipeline.records import open_split
from data_pipeline.window_features import WindowFeatures, has_features, write_index, write_rows
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import is_remote
from deeptalk_jax.progress import progress_bar
from deeptalk_jax.stages.base import Stage
from deeptalk_jax.training.mesh import batch_sharding, make_mesh, replicated, shard_batch
from deeptalk_jax.training.processes import any_process
from deeptalk_jax.training.step import decode_audio

PyTree = Any
_SPLIT = "train"


def precompute_features(stage: Stage, directory: str | os.PathLike) -> WindowFeatures:
    """Returns the features of all training windows of a stage; computes them unless the directory has them already.

    Each process computes a part of the windows on its own devices. All processes must share the directory.

    Args:
        stage: a stage with `window_features`.
        directory: directory of the files.

    Raises:
        UserError: the directory is in an object store or has features of other windows or weights, the stage has no
            such features, `data.windows_per_clip` is 0, or `init_from` is set.
    """
    data = stage.config.data
    if is_remote(directory):
        raise UserError(
            f"--precompute_features={directory}: object stores are not supported; give a directory"
        )
    if stage.config.init_from:
        raise UserError(
            f"--precompute_features={directory}: cannot be used with --config.init_from={stage.config.init_from}; "
            "features are computed with the imported weights"
        )
    if data.windows_per_clip < 1:
        raise UserError(
            f"--precompute_features={directory}: the windows must be known in advance, but "
            f"data.windows_per_clip={data.windows_per_clip}; give --config.data.windows_per_clip=N"
        )
    directory, constants = Path(directory), stage.constants()
    variables = {"params": stage.pretrained_params()}
    if not jax.eval_shape(stage.window_features, variables, constants, stage.batch_shapes()):
        raise UserError(
            f"--precompute_features={directory}: stage {stage.name!r} has no features of frozen networks"
        )
    num_windows = len(open_split(data.data_dir, data.dataset, _SPLIT, cache_bytes=0)) * data.windows_per_clip
    # The names are part of the digest: with other names, directories of earlier versions would be refused.
    key = _key(stage.config, num_windows, {"variables": variables, "frozen": constants})
    if not has_features(directory):
        count, index = jax.process_count(), jax.process_index()
        files = [f"features-{number:05d}-of-{count:05d}.array_record" for number in range(count)]
        first, last = (num_windows * part // count for part in (index, index + 1))
        batches = _computed(stage, variables, constants, range(first, last))
        shapes = write_rows(directory / files[index], batches)
        any_process(False)  # waits until all have written
        if index == 0:
            write_index(directory, key, shapes, files)
        any_process(False)
    return WindowFeatures(directory, key)


def _computed(
    stage: Stage, variables: PyTree, constants: PyTree, rows: range
) -> Iterator[dict[str, np.ndarray]]:
    """Computes the features of the windows `rows`, batch by batch."""
    data = stage.config.data
    mesh = make_mesh(devices=jax.local_devices())
    batch_size = max(data.batch_size // jax.process_count(), 1)
    batch_size += -batch_size % len(mesh.local_devices)
    compute = jax.jit(
        lambda *arguments: stage.window_features(*arguments[:2], decode_audio(arguments[2])),
        out_shardings=batch_sharding(mesh),
    )
    variables, constants = jax.device_put((variables, constants), replicated(mesh))
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
    with progress_bar(total=len(rows), desc="features", unit="window") as bar:
        for batch in batches:
            count = min(batch_size, len(rows) - bar.n)
            features = jax.device_get(compute(variables, constants, shard_batch(batch, mesh)))
            yield {name: array[:count] for name, array in features.items()}
            bar.update(count)


def _key(config: ConfigDict, num_windows: int, variables: PyTree) -> dict[str, Any]:
    """Returns the values that the features depend on, which the index of the directory records."""
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
