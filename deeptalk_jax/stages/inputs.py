"""Digests of the files that a run reads: data set, head, and models of earlier stages.

They identify a run by what it computes. A path says nothing about that: data move to the scratch disk of the next
allocation, and other files can be put at the same path.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from functools import partial
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from data_pipeline import registry
from data_pipeline.frames import split_file
from deeptalk_jax.assembly.model_dir import INDEX, read_index
from deeptalk_jax.assembly.stage_table import stage_row
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import PROCEDURAL
from deeptalk_jax.training.workdir import check_workdir, computed_values, input_of

_CHUNK_BYTES = 1 << 22
_SHARD_END_BYTES = 1 << 18


def check_run(workdir: epath.PathLike, config: ConfigDict, *, may_grow: bool = True) -> None:
    """Checks that a work directory is new or belongs to this config; inputs may have moved.

    Raises:
        UserError: see `training.workdir.check_workdir`.
    """
    check_workdir(workdir, config, partial(input_digest, config), may_grow=may_grow)


def input_digests(config: ConfigDict) -> dict[str, str]:
    """Returns the digest of every input of a run, by its name; inputs that are missing or empty are left out."""
    names = {input_of(key) for key in flatten_dict(config.to_dict(), sep=".")} - {None}
    digests = {name: input_digest(config, name) for name in sorted(names)}
    return {name: digest for name, digest in digests.items() if digest is not None}


def input_digest(config: ConfigDict, name: str) -> str | None:
    """Returns the digest of an input that `training.workdir.input_of` names; None if it is missing or empty."""
    digest = hashlib.sha256()
    try:
        if name == "data":
            _add_dataset(digest, config.data.data_dir, config.data.dataset)
            return digest.hexdigest()
        value = config
        for part in name.split("."):
            value = value[part]
        if not value:
            return None
        if name == "data.frames_file":
            _add_file(digest, epath.Path(split_file(value, "train")))
        elif name == "head" and value == PROCEDURAL:
            digest.update(value.encode())
        elif epath.Path(value).is_dir():
            _add_model(digest, value, _parts(config, name))
        else:
            _add_file(digest, epath.Path(value))
    except (ValueError, OSError):  # whoever loads the input reports what is wrong with it
        return None
    return digest.hexdigest()


def model_of(directory: epath.PathLike) -> epath.Path:
    """Returns the model directory of `init_from`, which may also name the work directory of a finished run."""
    path = epath.Path(directory)
    return path if (path / INDEX).exists() else path / "model"


def _parts(config: ConfigDict, name: str) -> Iterable[str]:
    """Returns the parts that the stage reads from the model directory of an input."""
    row = stage_row(config.stage)
    section, _, flag = name.partition(".")
    if section == "upstream":
        return row.upstream[flag]
    return [row.exported_part] if name == "init_from" else [config.model.speech.kind]


def _add_model(digest: Any, directory: str, names: Iterable[str]) -> None:
    """Adds the weights of parts of a model directory, and those values of their configs that shape the model.

    Statistics are left out, because they can be measured again without any change of the weights.
    """
    directory = model_of(directory)
    index = read_index(directory)
    for name in names:
        if name not in index["parts"]:
            raise UserError(f"{directory}: holds no part {name!r}")
        entry = index["parts"][name]
        digest.update(json.dumps([name, computed_values(entry["config"])], sort_keys=True).encode())
        _add_file(digest, directory / os.path.basename(entry["weights"]))


def _add_dataset(digest: Any, data_dir: str, dataset: str) -> None:
    """Adds name, splits and features of a data set, and of each shard the name, the size and both ends."""
    directory = epath.Path(registry.find_dataset(data_dir, dataset))
    info = json.loads((directory / "dataset_info.json").read_text())
    kept = {key: info.get(key) for key in ("name", "configName", "version", "splits")}
    digest.update(json.dumps(kept, sort_keys=True).encode())
    for file in sorted(directory.iterdir(), key=lambda path: path.name):
        if file.name == "features.json":
            _add_file(digest, file)
        elif ".array_record" in file.name:
            size = file.stat().length
            digest.update(f"{file.name} {size}".encode())
            with file.open("rb") as stream:
                digest.update(stream.read(_SHARD_END_BYTES))
                stream.seek(max(size - _SHARD_END_BYTES, 0))
                digest.update(stream.read(_SHARD_END_BYTES))


def _add_file(digest: Any, path: epath.Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
