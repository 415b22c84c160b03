"""A picture of what the controls of sampling do; see `inference.control_study`."""

from collections.abc import Mapping
from typing import Any

from deeptalk_jax.evaluation.charts import MOTION_COLOUR, SPEECH_COLOUR, dress, new_figure, png

_TITLES = {
    "alpha": "alpha: spread of the emotion",
    "temperature_top": "temperature_top: slow codes",
    "temperature_bottom": "temperature_bottom: fast codes",
    "top_p": "top_p, both temperatures 1",
}
_LIP_ERROR = "#222222"


def draw_controls(report: Mapping[str, Any]) -> bytes:
    """A PNG: distance of two samples above, lip error below, a column for every control.

    Args:
        report: what `sampling_controls` writes as JSON.
    """
    controls = report["controls"]
    figure = new_figure(2.7 * len(controls), 4.6)
    axes = figure.subplots(2, len(controls), sharex="col", sharey="row", squeeze=False)
    for (upper, lower), (name, values) in zip(axes.T, controls.items(), strict=True):
        for region, colour, label in (
            ("face", SPEECH_COLOUR, "whole face"),
            ("lips", MOTION_COLOUR, "lips"),
        ):
            upper.plot(
                values["values"], values[f"{region}_mm"], "o-", ms=4, lw=1.4, color=colour, label=label
            )
        lower.plot(values["values"], values["lip_error_mm"], "o-", ms=4, lw=1.4, color=_LIP_ERROR)
        dress(upper, _TITLES[name])
        dress(lower, "")
        lower.set_xlabel(name, fontsize=8)
    axes[0, 0].set_ylabel("mean distance of two samples, mm", fontsize=8)
    axes[1, 0].set_ylabel("lip vertex error, mm", fontsize=8)
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    for row in axes:  # which share their scale
        row[0].set_ylim(0.0, 1.04 * row[0].get_ylim()[1])
    figure.supxlabel(
        f"{report['num_samples']} samples of each of {report['num_clips']} clips of the {report['split']} split",
        fontsize=8,
    )
    return png(figure)
