"""The work directory of a run, and the config that it belongs to.

A run writes its resolved config to `config.json` and digests of the files that it reads to `inputs.json`. A later
command may resume there only if it computes the same, so paths may change as long as the files are the same.
"""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import is_remote, replace_when_whole

CONFIG_FILE = "config.json"
_INPUTS_FILE = "inputs.json"
_NUM_STEPS = "num_steps"
# Intervals, what is logged, devices, and how data are read.
_MAY_CHANGE = (
    "log_every_steps",
    "checkpoint_every_steps",
    "validate_every_steps",
    "eval_every_steps",
    "on_nonfinite",
    "num_devices",
    "parallel",
    "fsdp_devices",
    "remat",
    "data.num_threads",
    "data.validation_batches",
    "data.cache_bytes",
    "data.unpack_dir",
)
# Keys that were added later, with the value that runs had before.
_ADDED = {"init_from": "", "ema_decay": 0.0, "keep_best": ""}
# Config keys that name files or directories -> name of the input. Every key of the sections below is an input, too.
_INPUTS = {
    "data.data_dir": "data",
    "data.dataset": "data",
    "data.frames_file": "data.frames_file",
    "head": "head",
    "init_from": "init_from",
}
_INPUT_SECTIONS = ("upstream.", "pretrained.")


def input_of(key: str) -> str | None:
    """Returns the name of the input that a dotted config key names, such as `data` for `data.data_dir`, or None."""
    return key if key.startswith(_INPUT_SECTIONS) else _INPUTS.get(key)


def computed_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values of a config, by dotted key, that decide what is computed; inputs are left out.

    Keys that were added later are left out too while they have the value of before, so that digests of them stay.
    """
    flat = flatten_dict(dict(config), sep=".")
    return {
        key: value
        for key, value in flat.items()
        if key not in _MAY_CHANGE and input_of(key) is None and (key not in _ADDED or value != _ADDED[key])
    }


def read_config(workdir: epath.PathLike) -> ConfigDict | None:
    """Returns the config of a work directory, or None if no run was started there.

    Keys that were added later have the value that runs had before.

    Raises:
        UserError: the config cannot be read.
    """
    stored = _read(epath.Path(workdir) / CONFIG_FILE)
    return None if stored is None else ConfigDict(_ADDED | stored)


def metrics_file(workdir: epath.PathLike, split: str) -> epath.Path:
    """Returns the file of the metrics of a split: `metrics.json` for test, `metrics_SPLIT.json` for others."""
    return epath.Path(workdir) / ("metrics.json" if split == "test" else f"metrics_{split}.json")


def check_workdir(
    workdir: epath.PathLike,
    config: ConfigDict,
    digest_of: Callable[[str], str | None] = lambda name: None,
    *,
    may_grow: bool = True,
) -> None:
    """Checks that a work directory is new or was started with this config.

    Args:
        workdir: work directory.
        config: resolved config of this command.
        digest_of: returns the digest of the files of an input, or None if it is unknown. It is called only for inputs
            with another path than before.
        may_grow: whether `num_steps` may be larger than before.

    Raises:
        UserError: the directory belongs to another config, or its config cannot be read. All keys must agree, except
            those of `_MAY_CHANGE`; of an input, either the path or the digest.
    """
    stored = _read(epath.Path(workdir) / CONFIG_FILE)
    if stored is not None:
        recorded = _read(epath.Path(workdir) / _INPUTS_FILE) or {}
        before, now = _flat(stored), _flat(_plain(config))
        changed = _changed_values(before, now, may_grow)
        for name, keys in _by_input(before, now).items():
            if not _same_paths(before, now, keys) and not _equal(recorded.get(name), digest_of(name)):
                changed += [key for key in keys if not _same_paths(before, now, [key])]
        _refuse(workdir, changed)


def claim_workdir(
    workdir: epath.PathLike, config: ConfigDict, digests: Mapping[str, str] | None = None
) -> None:
    """Writes the config into a new work directory, or checks that an existing one was started with it.

    An existing `config.json` gets the present paths of the inputs and the present `num_steps`; the rest stays.

    Args:
        workdir: work directory, created if missing.
        config: resolved config of this command.
        digests: digest of the files of each input; inputs that are left out are compared by path.

    Raises:
        UserError: see `check_workdir`; an input has the same path but other files than before; or the directory
            cannot be written.
    """
    digests = digests or {}
    check_workdir(workdir, config, digests.get)
    directory = epath.Path(workdir)
    stored, recorded = (_read(directory / name) for name in (CONFIG_FILE, _INPUTS_FILE))
    now, recorded = _flat(_plain(config)), recorded or {}
    names = sorted(name for name in recorded.keys() & digests.keys() if recorded[name] != digests[name])
    _refuse(workdir, [f"the files of {name}" for name in names])
    if stored is None:
        merged = _plain(config)
    else:
        before = _flat(stored)
        moved = {key: now[key] for key in now if key == _NUM_STEPS or input_of(key)}
        moved = {key: value for key, value in moved.items() if before.get(key) != value}
        merged = unflatten_dict(flatten_dict(stored, sep=".", keep_empty_nodes=True) | moved, sep=".")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if merged != stored:
            _write(directory / CONFIG_FILE, merged)
        if digests.keys() - recorded.keys():
            _write(directory / _INPUTS_FILE, {**digests, **recorded})
    except OSError as error:
        raise UserError(f"{directory / CONFIG_FILE}: cannot be written ({error})") from error


def _changed_values(before: Mapping[str, Any], now: Mapping[str, Any], may_grow: bool) -> list[str]:
    """Returns the sorted keys that decide what is computed, are no inputs, and have another value than before."""
    names = {key for key in before.keys() | now.keys() if input_of(key) is None} - set(_MAY_CHANGE)
    changed = [name for name in names if before.get(name) != now.get(name)]
    grown = may_grow and now.get(_NUM_STEPS, 0) > before.get(_NUM_STEPS, 0)
    return sorted(name for name in changed if not (grown and name == _NUM_STEPS))


def _by_input(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[str]]:
    """Returns the config keys of each input by its name."""
    keys: dict[str, list[str]] = {}
    for key in sorted(before.keys() | now.keys()):
        if name := input_of(key):
            keys.setdefault(name, []).append(key)
    return keys


def _same_paths(before: Mapping[str, Any], now: Mapping[str, Any], keys: list[str]) -> bool:
    return all(_normal(before.get(key)) == _normal(now.get(key)) for key in keys)


def _normal(path: str | None) -> str | None:
    """Returns one spelling for `./x`, `x/` and the absolute path of x."""
    if not path:
        return path
    return path.rstrip("/") if is_remote(path) else os.path.realpath(path)


def _equal(recorded: str | None, digest: str | None) -> bool:
    return recorded is not None and recorded == digest


def _refuse(workdir: epath.PathLike, changed: list[str]) -> None:
    if changed:
        raise UserError(
            f"{workdir} was begun with another config (differs in: {', '.join(changed)}); give another --workdir, or "
            f"the values of {CONFIG_FILE} there"
        )


def _read(path: epath.Path) -> dict[str, Any] | None:
    try:
        if not path.exists():
            return None
        tree = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: cannot be read (expected an object)")
    return tree


def _write(path: epath.Path, tree: Mapping[str, Any]) -> None:
    with replace_when_whole(path) as temporary:
        temporary.write_text(json.dumps(tree, indent=2, sort_keys=True))


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    return _ADDED | flatten_dict(dict(tree), sep=".")


def _plain(config: ConfigDict) -> dict[str, Any]:
    return json.loads(config.to_json_best_effort())
