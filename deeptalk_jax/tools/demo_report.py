"""Checks the report of a demo run against the bounds that every figure must keep.

    python -m deeptalk_jax.tools.demo_report outputs/demo/report.json

Prints a table of the figures with their bounds. The exit status is 1 if a figure misses its bound, and 2 if the report
cannot be read.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError

Report = Mapping[str, Any]

_FACE_KEYS = (
    "gain_named_mean",
    "gain_named_min",
    "cosine_named_min",
    "gain_named_rising_min",
    "gain_heard_mean",
    "gain_heard_min",
    "closure_rate",
    "closure_auc",
    "rounding_auc",
    "closed_share",
    "blinks_per_minute",
    "brow_jitter",
    "lid_jitter",
)
KEYS = {
    "motion_prior": (
        "vertex_error_mm",
        "clip_mean_error_mm",
        "global_mean_error_mm",
        "perplexity_top",
        "perplexity_bottom",
        "gain_reconstruction_min",
        "closure_rate",
        "closure_rate_truth",
        "closed_share",
        "closed_share_truth",
        "brow_jitter",
        "lid_jitter",
    ),
    "dee": ("speech_to_motion_r1", "motion_to_speech_r1", "chance"),
    "generator": (
        "jaw_correlation",
        "lip_error_mm",
        "mean_pose_lip_error_mm",
        "shuffled_audio_jaw_correlation",
        "shuffled_audio_lip_error_mm",
        "emotion_accuracy",
        "heard_emotion_agreement",
        "named_emotion_accuracy",
        *_FACE_KEYS,
    ),
    "stage2": (
        "lip_error_mm",
        "emotion_accuracy",
        "heard_emotion_agreement",
        "named_emotion_accuracy",
        *_FACE_KEYS,
    ),
}
SCALARS = ("real_time_factor", "wall_s")


class Figure(NamedTuple):
    """A figure of the report and its bound.

    Attributes:
        name: text in the printed table.
        value: computes the figure from the report.
        bound: smallest value that passes, or the largest one with `at_most`.
        at_most: whether `bound` is the largest value that passes.
    """

    name: str
    value: Callable[[Report], float]
    bound: float
    at_most: bool = False

    def passes(self, report: Report) -> bool:
        """Returns whether the report keeps the bound; NaN never does."""
        value = self.value(report)
        return value <= self.bound if self.at_most else value >= self.bound


def _ratio(part: str, top: str, bottom: str) -> Callable[[Report], float]:
    return lambda report: report[part][top] / report[part][bottom]


FIGURES = (
    Figure(
        "motion prior: global mean pose error / reconstruction error",
        _ratio("motion_prior", "global_mean_error_mm", "vertex_error_mm"),
        2.9,
    ),
    Figure(
        "motion prior: closure rate of p, b, m",
        lambda report: report["motion_prior"]["closure_rate"],
        0.85,
    ),
    Figure(
        "motion prior: frames with closed eyes / those of the true motion",
        _ratio("motion_prior", "closed_share", "closed_share_truth"),
        0.5,
    ),
    Figure("DEE: R@1 speech to motion / chance", _ratio("dee", "speech_to_motion_r1", "chance"), 2.5),
    Figure("DEE: R@1 motion to speech / chance", _ratio("dee", "motion_to_speech_r1", "chance"), 2.5),
    Figure(
        "generator: correlation of jaw opening with the truth",
        lambda report: report["generator"]["jaw_correlation"],
        0.6,
    ),
    Figure(
        "generator: lip vertex error / that of the mean pose",
        _ratio("generator", "lip_error_mm", "mean_pose_lip_error_mm"),
        0.77,
        at_most=True,
    ),
    Figure(
        "generator: jaw correlation lost by shuffled audio",
        lambda report: (
            report["generator"]["jaw_correlation"] - report["generator"]["shuffled_audio_jaw_correlation"]
        ),
        0.3,
    ),
    Figure(
        "generator: lip vertex error with shuffled audio / with the right audio",
        _ratio("generator", "shuffled_audio_lip_error_mm", "lip_error_mm"),
        1.2,
    ),
    Figure(
        "stage 2: lip vertex error / that of stage 1",
        lambda report: report["stage2"]["lip_error_mm"] / report["generator"]["lip_error_mm"],
        1.1,
        at_most=True,
    ),
    Figure(
        "stage 2: agreement of face and speech in emotion",
        lambda report: report["stage2"]["heard_emotion_agreement"],
        0.5,
    ),
    Figure(
        "stage 2: mean gain of a named emotion",
        lambda report: report["stage2"]["gain_named_mean"],
        0.45,
    ),
    Figure("stage 2: closure rate of p, b, m", lambda report: report["stage2"]["closure_rate"], 0.5),
)

# Figures without a bound: text in the printed table, part of the report, key.
UNBOUNDED = (
    ("motion prior: smallest gain of an emotion", "motion_prior", "gain_reconstruction_min"),
    ("motion prior: closure rate of the true motion", "motion_prior", "closure_rate_truth"),
    ("motion prior: share of frames with closed eyes", "motion_prior", "closed_share"),
    ("motion prior: the same of the true motion", "motion_prior", "closed_share_truth"),
    ("stage 2: smallest gain of a named emotion", "stage2", "gain_named_min"),
    ("stage 2: mean gain of an emotion that is heard", "stage2", "gain_heard_mean"),
    ("stage 2: AUC of rounding", "stage2", "rounding_auc"),
    ("stage 2: share of frames with closed eyes", "stage2", "closed_share"),
    ("stage 2: jitter of the brows / that of the truth", "stage2", "brow_jitter"),
)


def read_report(path: Path) -> Report:
    """Reads a report and checks that it holds every key with a finite number.

    Raises:
        UserError: the file cannot be read, is not JSON, or lacks a finite number for a key.
    """
    try:
        report = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    wanted = [(part, name) for part, names in KEYS.items() for name in names]
    for keys in [*wanted, *((name,) for name in SCALARS)]:
        value = report
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{path}: {'.'.join(keys)} is {value!r}, expected a finite number")
    if not isinstance(report.get("versions"), dict):
        raise UserError(f"{path}: versions is missing, expected the versions of the packages by name")
    return report


def table(report: Report) -> str:
    """Returns a text table of all figures and their bounds, one figure per line."""
    width = max(len(figure.name) for figure in FIGURES)
    lines = [f"{'figure':{width}}  {'value':>8}  {'bound':>8}"]
    for figure in FIGURES:
        sign = "<=" if figure.at_most else ">="
        verdict = "ok" if figure.passes(report) else "FAILED"
        bound = f"{sign} {figure.bound:g}"
        lines.append(f"{figure.name:{width}}  {figure.value(report):8.3f}  {bound:>8}  {verdict}")
    lines += [f"{name:{width}}  {report[part][key]:8.3f}" for name, part, key in UNBOUNDED]
    lines.append(
        f"{'real-time factor of inference (seconds per second)':{width}}  {report['real_time_factor']:8.3f}"
    )
    lines.append(f"{'wall clock of the demo, s':{width}}  {report['wall_s']:8.0f}")
    return "\n".join(lines)


def check_report(arguments: list[str]) -> int:
    """Prints the figures of the report that the only argument names.

    Returns:
        Exit status: 0 if all figures keep their bounds, otherwise 1.

    Raises:
        UserError: not exactly one argument, or a report that cannot be read.
    """
    if len(arguments) != 1:
        raise UserError(f"{len(arguments)} arguments; expected one, the REPORT.json of a demo run")
    report = read_report(Path(arguments[0]))
    print(table(report))
    return int(not all(figure.passes(report) for figure in FIGURES))


if __name__ == "__main__":
    run_tool(check_report, takes_arguments=True)
