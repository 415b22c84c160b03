"""The datasets that can be built and read, by name, and where a built one lies.

A dataset joins by an entry in `BUILDERS`. Builders are imported when asked for: worker processes import the
main module again, and should not pay for TFDS.
"""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeptalk_jax.errors import UserError

# Name -> "module:function"; the function is called with the flags of `data_pipeline.build` as keywords and
# returns a TFDS builder with two properties more, `smallest_split_clips` and, once it has built, `speech_s`. It
# raises UserError for values that it cannot build.
BUILDERS = {"synthetic_talk": "data_pipeline.synthetic_talk.builder:make_builder"}

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_METADATA = (
    "dataset_info.json"  # TFDS renames the directory into place when this and the records are complete
)


def builder_factory(name: str) -> Callable[..., Any]:
    """The function that makes the builder of a dataset.

    Args:
        name: a key of `BUILDERS`.

    Raises:
        UserError: an unknown name.
    """
    if name not in BUILDERS:
        raise UserError(f"unknown dataset {name!r}; expected one of: {', '.join(sorted(BUILDERS))}")
    module, _, function = BUILDERS[name].partition(":")
    return getattr(importlib.import_module(module), function)


def find_dataset(data_dir: str | Path, dataset: str) -> Path:
    """The directory of a complete dataset.

    Args:
        data_dir: the root of all datasets.
        dataset: a name such as `synthetic_talk`, with the configuration where several are built:
            `synthetic_talk/clips2000_seed0`.

    Returns:
        The version directory, of the newest version.

    Raises:
        UserError: none or several fit; the message lists what exists.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise UserError(f"no data directory {str(root)!r}; build one with python -m data_pipeline.build")
    complete: dict[str, Path] = {}  # configuration -> newest version
    for metadata in sorted(root.glob(f"*/**/{_METADATA}"), key=lambda path: _version_key(path.parent)):
        if _VERSION.fullmatch(metadata.parent.name):
            complete[metadata.parent.parent.relative_to(root).as_posix()] = metadata.parent
    matches = [name for name in complete if name == dataset or name.startswith(f"{dataset}/")]
    if len(matches) == 1:
        return complete[matches[0]]
    if matches:
        raise UserError(
            f"dataset {dataset!r} is built {len(matches)} times in {root}; name one: {_listed(matches)}"
        )
    raise UserError(f"no complete dataset {dataset!r} in {root}; found: {_listed(complete) or 'none'}")


def _version_key(directory: Path) -> tuple[int, ...]:
    return tuple(int(part) for part in directory.name.split(".") if part.isdigit())


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))
