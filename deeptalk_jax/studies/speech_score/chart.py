"""Chart of a speech score: the scores of all recordings, and how far the lips close at p, b and m."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from deeptalk_jax.metrics.articulation import CLOSED_SHARE
from deeptalk_jax.rendering.figure import (
    GREY,
    INK,
    MOTION_COLOUR,
    SPEECH_COLOUR,
    encode_png,
    new_figure,
    style_axes,
)

_SHOWN = ("jaw_target_correlation", "closure_auc", "closure_rate", "rounding_auc")
_GAPS = np.linspace(-0.25, 2.0, 28)  # edges of the histogram; gaps beyond count to the outer bins


def draw_scores(report: Mapping[str, Any]) -> bytes:
    """Draws the report that the study writes, as a PNG: means as bars with a point per recording, and lip gaps."""
    figure = new_figure(9.0, 3.2)
    left, right = figure.subplots(1, 2)
    keys = [key for key in _SHOWN if key in report]
    left.bar(range(len(keys)), [report[key] for key in keys], 0.6, color=SPEECH_COLOUR)
    for place, key in enumerate(keys):
        values = [scores[key] for scores in report["recordings"].values() if key in scores]
        offsets = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
        left.plot(place + offsets, values, ".", ms=3, color=INK, alpha=0.5)
    left.set_xticks(range(len(keys)), [key.replace("_", " ") for key in keys], rotation=15)
    left.set_ylim(-0.05, 1.05)
    style_axes(left, f"{report['clips']} recordings")
    for name, colour in (("closures", MOTION_COLOUR), ("vowels", GREY)):
        values = np.clip(report["gaps"][name], _GAPS[0], _GAPS[-1])
        right.hist(values, _GAPS, histtype="stepfilled", alpha=0.6, color=colour, label=name)
    right.axvline(CLOSED_SHARE, color=INK, lw=0.8, ls=":")
    right.legend(fontsize=8, frameon=False)
    right.set_xlabel("lip gap / median gap of open vowels", fontsize=8)
    style_axes(right, "p, b, m count as closed left of the line")
    return encode_png(figure)
