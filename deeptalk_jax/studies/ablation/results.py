"""What runs leave in their work directories, read back: metrics, size and time, or why there are none."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from deeptalk_jax.assembly.model_dir import INDEX, read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.studies.ablation.rows import Ablations, Run
from deeptalk_jax.training.workdir import check_workdir

FAILURE_FILE = "failure.txt"  # its first line is the reason, the rest a traceback


class Result(NamedTuple):
    """A finished run.

    Attributes:
        run: which one.
        metrics: by name, as `eval.py` gives them.
        num_parameters: numbers in the trained parameters and the codebooks.
        train_s: seconds of training steps, compilation included; evaluation and loading are not.
    """

    run: Run
    metrics: dict[str, float]
    num_parameters: int
    train_s: float


class Failure(NamedTuple):
    """A run that ended with an error.

    Attributes:
        run: which one.
        reason: one line.
    """

    run: Run
    reason: str


def read_all(
    ablations: Ablations, root: Path, rows: Sequence[str], split: str
) -> tuple[list[Result], list[Failure]]:
    """Every finished and every failed run of some rows below the table's work directory, by row and seed.

    Raises:
        UserError: a run was begun with another config than its row has now.
    """
    results, failures = [], []
    for row in rows:
        suffixes = [folder.name.removeprefix("seed_") for folder in (root / "rows" / row).glob("seed_*")]
        for seed in sorted(int(suffix) for suffix in suffixes if suffix.isdigit()):
            run = Run(row, seed)
            check_config(ablations, run, root)
            result = read_result(run, root, split)
            reason = read_failure(run, root)
            if result is not None:
                results.append(result)
            elif reason is not None:
                failures.append(Failure(run, reason))
    return results, failures


def check_config(ablations: Ablations, run: Run, root: Path) -> None:
    """Holds the config that a run was begun with, if it was, against the one that it has now.

    Raises:
        UserError: see `training.workdir.check_workdir`.
    """
    check_workdir(run.workdir(root), ablations.config(run))


def read_result(run: Run, root: Path, split: str) -> Result | None:
    """A run's result on a split; None where it is not finished or its metrics are of an older model."""
    workdir = run.workdir(root)
    path, index = workdir / "metrics.json", workdir / "model" / INDEX
    try:
        report = json.loads(path.read_text())
        if report.pop("split") != split or path.stat().st_mtime < index.stat().st_mtime:
            return None
    except (FileNotFoundError, json.JSONDecodeError):  # not there, or cut off while it was written
        return None
    stage = report.pop("stage")
    return Result(run, report, count_parameters(workdir / "model", stage), training_seconds(workdir))


def read_failure(run: Run, root: Path) -> str | None:
    """The reason why a run failed when it was last tried, None where it did not."""
    try:
        return (run.workdir(root) / FAILURE_FILE).read_text().partition("\n")[0]
    except FileNotFoundError:
        return None


def count_parameters(model: Path, part: str) -> int:
    """Numbers in the parameters and codebooks of a part of a model directory."""
    weights = read_index(model)["parts"][part]["weights"]
    with safe_open(model / weights, framework="numpy") as file:
        return sum(
            math.prod(file.get_slice(key).get_shape())
            for key in file.keys()  # noqa: SIM118 (it is no mapping)
            if key.startswith("params/") or (key.startswith("codebook/") and key.endswith("/embedding"))
        )


def training_seconds(workdir: Path) -> float:
    """Seconds of training steps from `metrics.jsonl`; steps that an interruption made twice count once."""
    rates = {}
    try:
        for line in (workdir / "metrics.jsonl").read_text().splitlines():
            row = json.loads(line)
            if "train/steps_per_s" in row:
                rates[row["step"]] = row["train/steps_per_s"]
    except (OSError, ValueError) as error:
        raise UserError(f"{workdir / 'metrics.jsonl'}: cannot be read ({error})") from error
    seconds, previous = 0.0, 0
    for step in sorted(rates):
        seconds += (step - previous) / rates[step]
        previous = step
    return seconds
