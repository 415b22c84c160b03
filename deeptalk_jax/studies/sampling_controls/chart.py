"""Chart of the sampling controls: distance between samples and lip error against the value of each control."""

from collections.abc import Mapping
from typing import Any

from deeptalk_jax.rendering.figure import (
    INK,
    MOTION_COLOUR,
    SPEECH_COLOUR,
    encode_png,
    new_figure,
    style_axes,
)

_TITLES = {
    "alpha": "alpha: spread of the emotion",
    "temperature_top": "temperature_top: slow codes",
    "temperature_bottom": "temperature_bottom: fast codes",
    "top_p": "top_p, both temperatures 1",
}


def draw_controls(report: Mapping[str, Any]) -> bytes:
    """Draws a column per control, the distance between two samples above and the lip error below, as a PNG.

    Args:
        report: content of the JSON file that the study writes.
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
        lower.plot(values["values"], values["lip_error_mm"], "o-", ms=4, lw=1.4, color=INK)
        style_axes(upper, _TITLES[name])
        style_axes(lower)
        lower.set_xlabel(name, fontsize=8)
    axes[0, 0].set_ylabel("mean distance between two samples, mm", fontsize=8)
    axes[1, 0].set_ylabel("lip vertex error, mm", fontsize=8)
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    for row in axes:  # the axes of a row share their scale
        row[0].set_ylim(0.0, 1.04 * row[0].get_ylim()[1])
    figure.supxlabel(
        f"{report['num_samples']} samples of each of {report['num_clips']} clips of the {report['split']} split",
        fontsize=8,
    )
    return encode_png(figure)
