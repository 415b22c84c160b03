"""Model directories: files with the weights and configs of one or more trained parts.

    model.json                     index: format, version, head, basis, and the config and file names of each part
    PART.safetensors               variables of a part, by path
    PART.statistics.safetensors    small arrays measured with a part on its training data, if there are any

Each stage exports a model directory with its own part and its upstream parts, so no other directory is needed:
`DeepTalk.load` reads the export of the last stage.
"""

import json
import os
import stat
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load, load_file, save, save_file

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import is_remote, replace_when_whole
from deeptalk_jax.head.basis import Basis, basis_of_record

FORMAT = "deeptalk_jax model"
FORMAT_VERSION = 3
INDEX = "model.json"

PyTree = Any


class Part(NamedTuple):
    """A trained part of the model.

    Attributes:
        config: resolved config of the stage that trained the part.
        variables: `params` and mutable collections, as numpy arrays.
        statistics: arrays measured with the trained part on its training data, by name.
    """

    config: ConfigDict
    variables: PyTree
    statistics: Mapping[str, np.ndarray] = MappingProxyType({})


def save_model(
    directory: epath.PathLike,
    parts: dict[str, Part],
    *,
    head: str | None,
    basis: Basis | None = None,
    keep_others: bool = False,
) -> None:
    """Writes a model directory.

    Each file appears whole or not at all, and the index is written last.

    Args:
        directory: output directory, created if missing; parts of the same name are replaced.
        parts: parts by name.
        head: head reference for `head.load.load_head`; None if the model has no head of its own to be shown on.
        basis: what the coefficients of the model stand for; None if it is not known, or for the embedded head.
        keep_others: whether other parts of an existing model directory stay in its index.

    Raises:
        UserError: the directory cannot be written, or has a damaged index and `keep_others` is set.
    """
    directory = epath.Path(directory)
    index = {"format": FORMAT, "format_version": FORMAT_VERSION, "head": head, "parts": {}}
    basis = basis or basis_of_record(None, head)
    index["basis"] = basis and basis.record()
    if keep_others and (directory / INDEX).exists():
        index["parts"] = read_index(directory)["parts"]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, part in parts.items():
            weights = f"{name}.safetensors"
            _write_arrays(directory / weights, flatten_dict(part.variables, sep="/"))
            entry = {"config": json.loads(part.config.to_json_best_effort()), "weights": weights}
            index["parts"][name] = entry | _write_statistics(directory, name, part.statistics)
        _write_index(directory, index)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory}: cannot write the model directory ({error})") from error


def save_statistics(directory: epath.PathLike, name: str, statistics: Mapping[str, np.ndarray]) -> None:
    """Replaces the statistics of a part in a model directory.

    Raises:
        UserError: there is no model directory, it has no part of that name, or it cannot be written.
    """
    index = read_index(directory)
    entry = _entry(directory, index, name)
    try:
        entry |= _write_statistics(epath.Path(directory), name, statistics)
        _write_index(epath.Path(directory), index)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{directory}: cannot write the model directory ({error})") from error


def _write_statistics(
    directory: epath.Path, name: str, statistics: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """Writes the statistics of a part, if any, and returns their entry for the index."""
    if not statistics:
        return {}
    file = f"{name}.statistics.safetensors"
    _write_arrays(directory / file, statistics)
    return {"statistics": file}


def _write_arrays(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
    arrays = {key: np.array(value, order="C") for key, value in arrays.items()}
    with replace_when_whole(path) as temporary:
        if is_remote(path):
            temporary.write_bytes(save(arrays))
        else:
            temporary.touch()  # has the mode that the umask gives; `save_file` would leave 0600
            mode = os.stat(temporary).st_mode
            save_file(arrays, temporary)
            os.chmod(temporary, stat.S_IMODE(mode))


def _write_index(directory: epath.Path, index: dict[str, Any]) -> None:
    with replace_when_whole(directory / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=2, sort_keys=True))


def read_index(directory: epath.PathLike) -> dict[str, Any]:
    """Reads and checks `model.json`.

    Raises:
        UserError: the directory or the index is missing, or the index is damaged or has another format or version.
    """
    path = epath.Path(directory) / INDEX
    try:
        if not path.is_file():
            raise UserError(f"{directory}: no model directory (it holds no {INDEX})")
        index = json.loads(path.read_text())
        name, version = index["format"], index["format_version"]
        parts = index["parts"]
        complete = all({"config", "weights"} <= part.keys() for part in parts.values()) and "head" in index
        if complete:
            index_basis(index)
    except PermissionError as error:
        raise _not_permitted(path) from error
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged, not a model index ({type(error).__name__}: {error})") from error
    if name != FORMAT or not complete:
        raise UserError(f"{path}: not a {FORMAT!r} index")
    if version != FORMAT_VERSION:
        raise UserError(f"{path}: format version {version!r}; this program reads version {FORMAT_VERSION}")
    return index


def index_basis(index: Mapping[str, Any]) -> Basis | None:
    """Returns what the coefficients of a model stand for, from its index; None if it is not known.

    Directories of earlier versions have no record: those for the embedded head have its basis.
    """
    return basis_of_record(index.get("basis"), index["head"])


def load_part(directory: epath.PathLike, name: str) -> Part:
    """Loads one part of a model directory.

    Raises:
        UserError: the directory has no part of that name, or one of its files is missing or damaged.
    """
    entry = _entry(directory, read_index(directory), name)
    flat = _read_arrays(directory, entry["weights"], "weights")
    statistics = _read_arrays(directory, entry["statistics"], "statistics") if "statistics" in entry else {}
    return Part(ConfigDict(entry["config"]), unflatten_dict(flat, sep="/"), statistics)


def _entry(directory: epath.PathLike, index: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns the entry of a part in the index."""
    if name not in index["parts"]:
        held = ", ".join(sorted(index["parts"])) or "none"
        raise UserError(f"{directory}: holds no part {name!r}, only: {held}")
    return index["parts"][name]


def _read_arrays(directory: epath.PathLike, file: str, what: str) -> dict[str, np.ndarray]:
    path = epath.Path(directory) / os.path.basename(
        file
    )  # an index cannot refer to files outside the directory
    try:
        if is_remote(path):
            return load(path.read_bytes())
        with path.open("rb"):  # safetensors calls a file that may not be read a missing one
            return load_file(path)
    except PermissionError as error:
        raise _not_permitted(path) from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: {what} missing or damaged ({error})") from error


def _not_permitted(path: epath.Path) -> UserError:
    return UserError(f"{path}: permission denied; make the file readable (chmod), or ask its owner to")


def check_variables(name: str, variables: PyTree, expected: PyTree) -> None:
    """Checks that loaded variables have the shapes of the model.

    Args:
        name: name of the part, for messages.
        variables: loaded variables.
        expected: variables of the model, or their shapes.

    Raises:
        UserError: a tensor is missing, unknown to the model, or of another shape; the message names the first one.
    """
    have, want = flatten_dict(variables, sep="/"), flatten_dict(expected, sep="/")
    for key in sorted(want.keys() | have.keys()):
        if key not in have:
            raise UserError(f"part {name!r}: tensor {key} is missing")
        if key not in want:
            raise UserError(f"part {name!r}: tensor {key} is unknown to the model")
        if have[key].shape != want[key].shape:
            raise UserError(
                f"part {name!r}: tensor {key} has shape {have[key].shape}, expected {want[key].shape}"
            )
