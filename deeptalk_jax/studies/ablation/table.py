"""Table of an ablation study: means and deviations over seeds as Markdown, and all runs as CSV."""

import csv
import fnmatch
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from deeptalk_jax.studies.ablation.results import Failure, Result

# Direction of a metric by the first pattern that matches: -1 if lower is better, 1 if higher is better, 0 for counts
# and for references that depend only on the data.
DIRECTIONS = (
    ("chance*", 0),
    ("majority", 0),
    ("num_*", 0),
    ("mean_pose_*", 0),
    ("clip_mean_*", 0),
    ("global_mean_*", 0),
    ("shuffled_audio_*", 0),
    ("true_motion_*", 0),
    ("*_diversity_mm", 1),
    ("*_mm", -1),
    ("*_accuracy", 1),
    ("*_correlation", 1),
    ("*_r1", 1),
    ("*_r5", 1),
    ("*_r10", 1),
    ("*_rank", -1),
    ("ece", -1),
    ("brier_skill", 1),
    ("*_intensity_spearman", -1),  # of variance or entropy: weak emotions should be ambiguous
    ("perplexity_*", 1),
    ("used_*", 1),
)
_ARROWS = {-1: " ↓", 0: "", 1: " ↑"}
_SIGNIFICANT_DIGITS = 4
_MISSING = "–"


class Summary(NamedTuple):
    """A metric over the seeds of a row.

    Attributes:
        mean: arithmetic mean.
        deviation: sample standard deviation (with n - 1); None for a single seed.
        values: value of each seed.
    """

    mean: float
    deviation: float | None
    values: tuple[float, ...]

    def __str__(self) -> str:
        if all(float(value).is_integer() for value in self.values) and not self.deviation:
            return f"{self.mean:g}"
        magnitude = math.floor(math.log10(abs(self.mean))) if self.mean and math.isfinite(self.mean) else 0
        decimals = max(0, _SIGNIFICANT_DIGITS - 1 - magnitude)
        deviation = "" if self.deviation is None else f" ± {self.deviation:.{decimals}f}"
        return f"{self.mean:.{decimals}f}{deviation}"


def direction(metric: str) -> int:
    """Returns -1 if lower is better, 1 if higher is better, and 0 if neither or unknown."""
    return next((sign for pattern, sign in DIRECTIONS if fnmatch.fnmatchcase(metric, pattern)), 0)


def summarise(values: Sequence[float]) -> Summary:
    """Summarises one number per seed."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.fmean(values), deviation, tuple(values))


def summaries(results: Sequence[Result]) -> dict[str, dict[str, Summary]]:
    """Summarises by row and metric, in the order of first appearance; a row has only the metrics of its runs."""
    values: dict[str, dict[str, list[float]]] = {}
    for result in results:
        row = values.setdefault(result.run.row, {})
        for name, value in result.metrics.items():
            row.setdefault(name, []).append(value)
    return {
        row: {name: summarise(numbers) for name, numbers in metrics.items()}
        for row, metrics in values.items()
    }


def metric_names(results: Sequence[Result]) -> list[str]:
    """Returns the metrics of all runs, in the order of first appearance."""
    return list(dict.fromkeys(name for result in results for name in result.metrics))


def best_rows(means: Mapping[str, float], sign: int) -> set[str]:
    """Returns the rows with the best mean; none if the metric has no direction or all means are equal."""
    finite = {row: mean for row, mean in means.items() if math.isfinite(mean)}
    if not sign or len(set(finite.values())) < 2:
        return set()
    best = max(sign * mean for mean in finite.values())
    return {row for row, mean in finite.items() if sign * mean == best}


def markdown(
    title: str,
    results: Sequence[Result],
    failures: Sequence[Failure],
    changes: Mapping[str, Mapping[str, Any]],
) -> str:
    """Formats the table as Markdown.

    Args:
        title: heading.
        results: finished runs.
        failures: failed runs.
        changes: overrides of each row by dotted key.
    """
    table, names = summaries(results), metric_names(results)
    best = {
        name: best_rows(
            {row: cells[name].mean for row, cells in table.items() if name in cells}, direction(name)
        )
        for name in names
    }
    header = [*(name + _ARROWS[direction(name)] for name in names)]
    lines = [
        f"# {title}",
        "",
        "Mean ± sample standard deviation over the seeds. **Bold** marks the best mean of a column; the arrow tells "
        "whether lower (↓) or higher (↑) is better.",
        "",
        "| " + " | ".join(["row", "seeds", *header, "parameters", "training, s"]) + " |",
        "|" + "---|" * (len(names) + 4),
    ]
    for row, cells in table.items():
        own = [result for result in results if result.run.row == row]
        texts = [_bold(cells.get(name, _MISSING), row in best[name]) for name in names]
        size = summarise([result.num_parameters for result in own])
        time = summarise([round(result.train_s, 1) for result in own])
        lines.append(
            "| " + " | ".join([f"`{row}`", str(len(own)), *texts, f"{size.mean:,.0f}", str(time)]) + " |"
        )
    lines += ["", "## Rows", ""]
    for row in dict.fromkeys([*table, *(failure.run.row for failure in failures)]):
        settings = ", ".join(f"`{key}={value}`" for key, value in changes[row].items())
        lines.append(f"- `{row}`: {settings or 'nothing changed'}")
    if failures:
        lines += ["", "## Failed", ""]
        lines += [f"- `{run.row}`, seed {run.seed}: {reason}" for run, reason in failures]
    return "\n".join(lines) + "\n"


def _bold(cell: object, best: bool) -> str:
    return f"**{cell}**" if best else str(cell)


def long_form(results: Sequence[Result]) -> str:
    """Formats each run as a line of CSV: row, seed, parameters, train_s and metrics; a missing metric is empty."""
    text = io.StringIO()
    fields = ["row", "seed", "parameters", "train_s", *metric_names(results)]
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    for result in results:
        run = {"row": result.run.row, "seed": result.run.seed}
        size = {"parameters": result.num_parameters, "train_s": round(result.train_s, 3)}
        writer.writerow({**run, **size, **result.metrics})
    return text.getvalue()
