"""Registry of dataset builders, and search for built datasets on disk.

Only `data_pipeline.build` needs an entry in `BUILDERS`. Reading needs none: any dataset that TFDS has written below the
data directory, with the features of `features.clip_features` and in ArrayRecord files, is found by its name.
"""

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import is_remote
from deeptalk_jax.head.basis import EMBEDDED, Basis, basis_of_record

# Name of a dataset -> "module:function". The function takes the keyword arguments data_dir, num_clips, seed and
# num_workers, and returns a TFDS builder with two additional properties: `smallest_split_clips`, and `speech_s` (valid
# after the build). It raises UserError for values that it cannot build. The entry is a string because worker processes
# import the main module again and should not have to import TFDS.
BUILDERS = {"synthetic_talk": "data_pipeline.synthetic_talk.builder:make_builder"}

_VERSION = re.compile(r"\d+\.\d+\.\d+")
# TFDS moves the directory to its final name only after this file and all records are complete.
_INFO = "dataset_info.json"
METADATA = "metadata.json"  # name of the file that TFDS gives to the metadata of a dataset
# Bases of datasets whose first versions had no record.
_BASES_WITHOUT_RECORD = {"synthetic_talk": EMBEDDED}


def builder_factory(name: str) -> Callable[..., Any]:
    """Imports and returns the function that creates the builder of a dataset.

    Args:
        name: A key of `BUILDERS`.

    Raises:
        UserError: The name is unknown; the message lists the known ones.
    """
    if name not in BUILDERS:
        raise UserError(f"unknown dataset {name!r}; expected one of: {', '.join(sorted(BUILDERS))}")
    module, _, function = BUILDERS[name].partition(":")
    return getattr(importlib.import_module(module), function)


def find_dataset(data_dir: str | Path, dataset: str) -> Path:
    """Returns the directory of a complete dataset, in its newest version.

    Args:
        data_dir: Root directory of all datasets.
        dataset: Name of the dataset, such as `synthetic_talk`. If it is built in several configurations, the name
            includes the configuration: `synthetic_talk/clips2000_seed0`.

    Returns:
        The directory of the version, such as `data_dir/synthetic_talk/clips2000_seed0/1.4.0`.

    Raises:
        UserError: The directory is in an object store, or no dataset or several datasets have this name; the
            message lists what exists.
    """
    if is_remote(data_dir):
        raise UserError(
            f"{data_dir}: datasets are read from a local disk; copy it and give --config.data.data_dir=DIR"
        )
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"no data directory {str(root)!r}; build one with python -m data_pipeline.build")
    complete: dict[str, Path] = {}  # name with configuration -> directory of the newest version
    for metadata in sorted(root.glob(f"*/**/{_INFO}"), key=lambda path: _version_key(path.parent)):
        if _VERSION.fullmatch(metadata.parent.name):
            complete[metadata.parent.parent.relative_to(root).as_posix()] = metadata.parent
    matches = [name for name in complete if name == dataset or name.startswith(f"{dataset}/")]
    if len(matches) == 1:
        return complete[matches[0]]
    if matches:
        raise UserError(
            f"dataset {dataset!r} has {len(matches)} configurations in {root}; expected one of: {_listed(matches)}"
        )
    raise UserError(f"no complete dataset {dataset!r} in {root}; found: {_listed(complete) or 'none'}")


def dataset_basis(data_dir: str | Path, dataset: str) -> Basis | None:
    """Returns what the motion coefficients of a dataset stand for; None if the dataset does not record it.

    Raises:
        UserError: See `find_dataset`; or the record is damaged.
    """
    path = find_dataset(data_dir, dataset) / METADATA
    if not path.exists():
        return _BASES_WITHOUT_RECORD.get(dataset.partition("/")[0])
    try:
        return basis_of_record(json.loads(path.read_text()).get("basis"))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: damaged, not the metadata of a dataset ({error}); copy or build the dataset again"
        ) from error


def _version_key(directory: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in directory.name.split(".") if part.isdigit())


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
