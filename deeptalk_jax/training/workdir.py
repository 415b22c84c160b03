"""The work directory of a run, and the config that it belongs to.

A run writes its resolved config to `config.json` in its work directory. A later command may resume there only with the
same config, except for keys that do not change what is computed.
"""

import json

from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole

_CONFIG_FILE = "config.json"
# Intervals, devices, and how data are read.
_MAY_CHANGE = (
    "log_every_steps",
    "checkpoint_every_steps",
    "eval_every_steps",
    "on_nonfinite",
    "num_devices",
    "parallel",
    "fsdp_devices",
    "remat",
    "data.num_threads",
    "data.cache_bytes",
    "data.unpack_dir",
)


def check_workdir(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Checks that a work directory is new or was started with this config.

    Raises:
        UserError: the directory contains another config (all keys except those of `_MAY_CHANGE` must agree), or its
            config cannot be read.
    """
    path = epath.Path(workdir) / _CONFIG_FILE
    try:
        if not path.exists():
            return
        before, now = (
            flatten_dict(json.loads(tree), sep=".") for tree in (path.read_text(), _as_json(config))
        )
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    names = (before.keys() | now.keys()) - set(_MAY_CHANGE)
    changed = sorted(name for name in names if before.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{workdir} was begun with another config (differs in: {', '.join(changed)}); "
            "use another --workdir, or delete this one"
        )


def claim_workdir(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Writes the config into a new work directory, or checks that an existing one was started with it.

    Raises:
        UserError: see `check_workdir`; or the directory cannot be written.
    """
    check_workdir(workdir, config)
    path = epath.Path(workdir) / _CONFIG_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with replace_when_whole(path) as temporary:
                temporary.write_text(_as_json(config))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from error


def _as_json(config: ConfigDict) -> str:
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2, sort_keys=True)
