"""Results of finished and failed runs, read from their work directories."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from deeptalk_jax.assembly.model_dir import INDEX, read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages.inputs import check_run
from deeptalk_jax.studies.ablation.rows import Ablations, Run
from deeptalk_jax.training.workdir import metrics_file

FAILURE_FILE = "failure.txt"  # the reason in the first line, then a traceback


class Result(NamedTuple):
    """A finished run.

    Attributes:
        run: row and seed.
        metrics: values by name, as `eval.py` computes them.
        num_parameters: number of trained parameters and codebook entries.
        train_s: seconds of the training steps, including compilation but not evaluation or loading.
    """

    run: Run
    metrics: dict[str, float]
    num_parameters: int
    train_s: float


class Failure(NamedTuple):
    """A run that ended with an error.

    Attributes:
        run: row and seed.
        reason: one line.
    """

    run: Run
    reason: str


def read_all(
    ablations: Ablations, root: Path, rows: Sequence[str], split: str
) -> tuple[list[Result], list[Failure]]:
    """Reads all finished and all failed runs of the given rows, sorted by row and seed.

    Raises:
        UserError: a run was started with another config than its row has now.
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
    """Checks that a run that was started has the same config as its row has now.

    Raises:
        UserError: the configs differ.
    """
    check_run(run.workdir(root), ablations.config(run), may_grow=False)


def read_result(run: Run, root: Path, split: str) -> Result | None:
    """Returns a run's result on a split; None if it is not finished or its metrics belong to an older model."""
    workdir = run.workdir(root)
    path, index = Path(metrics_file(workdir, split)), workdir / "model" / INDEX
    try:
        report = json.loads(path.read_text())
        if report.pop("split") != split or path.stat().st_mtime < index.stat().st_mtime:
            return None
    except (FileNotFoundError, json.JSONDecodeError):  # missing, or truncated
        return None
    stage = report.pop("stage")
    report.pop("head", None)  # text; metrics of stages without masks have none
    return Result(run, report, count_parameters(workdir / "model", stage), training_seconds(workdir))


def read_failure(run: Run, root: Path) -> str | None:
    """Returns the reason why the last attempt of a run failed, or None if it did not fail."""
    try:
        return (run.workdir(root) / FAILURE_FILE).read_text().partition("\n")[0]
    except FileNotFoundError:
        return None


def count_parameters(model: Path, part: str) -> int:
    """Counts the parameters and codebook entries of a part of a model directory."""
    weights = read_index(model)["parts"][part]["weights"]
    with safe_open(model / weights, framework="numpy") as file:
        return sum(
            math.prod(file.get_slice(key).get_shape())
            for key in file.keys()  # noqa: SIM118 (a safetensors file is not a mapping)
            if key.startswith("params/") or (key.startswith("codebook/") and key.endswith("/embedding"))
        )


def training_seconds(workdir: Path) -> float:
    """Sums the time of the training steps in `metrics.jsonl`; steps repeated after an interruption count once."""
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
