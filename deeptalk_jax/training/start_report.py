"""What a run is about to do, printed at its start, and where it came from, kept in `run.json`."""

import importlib.metadata
import json
import shlex
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.training.best import BestModel
from deeptalk_jax.training.optimiser import split_frozen

PyTree = Any
RUN_FILE = "run.json"
_PACKAGES = ("deeptalk_jax", "jax", "flax", "optax", "orbax-checkpoint")


def start_report(
    config: ConfigDict,
    params: PyTree,
    *,
    source: str,
    data: str,
    head: str,
    devices: int,
    first_step: int,
    workdir: epath.PathLike,
    best: BestModel | None,
) -> str:
    """Returns the lines that a run prints before its first step.

    Args:
        config: resolved config.
        params: all parameters of the stage.
        source: config file and changed keys.
        data: description of the training data.
        head: description of the head model; empty if there is none.
        devices: number of devices, over all processes.
        first_step: number of steps taken already.
        workdir: work directory.
        best: best model so far; None if the last one is exported.
    """
    trained, frozen = split_frozen(params, config.optimiser.frozen)
    kind = jax.devices()[0].device_kind
    lines = {
        "config": source,
        "trained": _sizes(trained),
        "frozen": _sizes(frozen),
        "devices": f"{devices} x {kind}, processes: {jax.process_count()}, global batch: {config.data.batch_size}",
        "data": data,
        "head": head,
        "steps": f"{config.num_steps}" + (f", resuming at {first_step}" if first_step else ""),
        "metrics": f"{epath.Path(workdir) / 'metrics.jsonl'}; tensorboard --logdir={workdir}",
    }
    if config.ema_decay:
        lines["average"] = f"of the weights, decay {config.ema_decay}: evaluated and exported"
    if best:
        metric, better = best.criterion
        lines["best"] = f"{metric} on the validation split, {better} is better: this model is exported"
        lines["best"] += "" if best.step is None else f"; so far {best.value:.4g} at step {best.step}"
    return "\n".join(
        [f"stage {config.stage}", *(f"  {name:8s} {text}" for name, text in lines.items() if text)]
    )


def _sizes(params: PyTree) -> str:
    """Returns the number of parameters, and that of each top-level part."""
    counts = Counter()
    for path, leaf in flatten_dict(params).items():
        counts[path[0]] += leaf.size
    parts = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"{counts.total():,} parameters" + (f": {parts}" if parts else "")


def append_run(workdir: epath.PathLike, *, source: str, first_step: int) -> None:
    """Appends an entry on this start to the list in `workdir/run.json`.

    Raises:
        UserError: the file cannot be read or written.
    """
    entry = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "command": shlex.join(sys.argv),
        "config": source,
        "first_step": first_step,
        "commit": _commit(),
        "versions": {"python": sys.version.split()[0], **{name: _version(name) for name in _PACKAGES}},
    }
    _change_runs(workdir, lambda runs: [*runs, entry])


def record_export(workdir: epath.PathLike, *, step: int, metrics: Mapping[str, float]) -> None:
    """Notes in the last entry of `workdir/run.json` which step is exported, and its metric if it is the best one.

    Raises:
        UserError: the file cannot be read or written.
    """
    _change_runs(workdir, lambda runs: [*runs[:-1], {**runs[-1], "exported": {"step": step, **metrics}}])


def _change_runs(workdir: epath.PathLike, change: Callable[[list], list]) -> None:
    path = epath.Path(workdir) / RUN_FILE
    try:
        runs = change(json.loads(path.read_text()) if path.exists() else [])
        with replace_when_whole(path) as temporary:
            temporary.write_text(json.dumps(runs, indent=2) + "\n")
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read or written ({error})") from error


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # the package runs from a clone
        return None


def _commit() -> str | None:
    """Returns the git commit of the source, with `-dirty` if files were changed; None outside a clone."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
