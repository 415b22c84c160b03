"""A picture of what the two levels of the prior hold; see `stages.prior_levels`."""

import io
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

_TOP, _BOTTOM, _NEITHER, _MARK = "#4c6a92", "#e0a458", "#cccccc", "#222222"
_HEIGHT = 0.6
# Rows of the left panel below that of FER's class: label, kind of pairs, measure.
_POSITIONS = (
    ("DEE embedding", "other_emotion", "emotion_embedding"),
    ("mean face", "other_emotion", "mean_face"),
    ("jaw opening", "other_sentence", "jaw_motion"),
    ("lip vertices", "other_sentence", "lip_motion"),
)


def draw_levels(report: Mapping[str, Any]) -> bytes:
    """A PNG: whom exchanged codes take after, by level, and the correlations of the mouth's motion.

    Args:
        report: what `prior_levels` writes as JSON.
    """
    figure = Figure(figsize=(9.6, 4.0), dpi=130, facecolor="white", layout="constrained")
    positions, correlations = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    _draw_classes(positions, report["other_emotion"])
    _draw_positions(positions, report)
    _draw_correlations(correlations, report["other_sentence"])
    for axis in (positions, correlations):
        axis.tick_params(labelsize=8, length=2.5)
        for spine in ("top", "right"):
            axis.spines[spine].set_visible(False)
    figure.legend(
        handles=[
            Patch(color=_TOP, label="as the clip of the top codes"),
            Patch(color=_BOTTOM, label="as the clip of the bottom codes"),
            Patch(color=_NEITHER, label="neither"),
            Line2D([], [], color=_MARK, ls=":", label="between the two clips"),
        ],
        loc="outside upper center", ncols=4, fontsize=8, frameon=False,
    )  # fmt: skip
    figure.supxlabel(
        f"emotion: {report['other_emotion']['num_pairs']} pairs of clips with one sentence in two emotions; "
        f"mouth: {report['other_sentence']['num_pairs']} pairs with two sentences in one emotion\n"
        "bars: medians over pairs (FER class: share of all exchanges); lines: quartiles",
        fontsize=8,
    )
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def _draw_classes(axis: Axes, values: Mapping[str, Any]) -> None:
    """The top row: shares of the exchanges with the FER class of either clip."""
    top, bottom = (values[f"class_{level}"]["mean"] or 0.0 for level in ("top", "bottom"))
    axis.barh(0, top, color=_TOP, height=_HEIGHT)
    axis.barh(0, 1.0 - top - bottom, left=top, color=_NEITHER, height=_HEIGHT)
    axis.barh(0, bottom, left=1.0 - bottom, color=_BOTTOM, height=_HEIGHT)
    axis.text(1.02, 0, f"{top:.2f}", fontsize=8, va="center")


def _draw_positions(axis: Axes, report: Mapping[str, Any]) -> None:
    """The other rows: bars from 0 to 1, blue as far as the result takes after the clip of the top codes."""
    for place, (_, kind, measure) in enumerate(_POSITIONS, start=1):
        values = report[kind][measure]
        median = min(max(values["median"], 0.0), 1.0)
        axis.barh(place, median, color=_TOP, height=_HEIGHT)
        axis.barh(place, 1.0 - median, left=median, color=_BOTTOM, height=_HEIGHT)
        axis.plot([values["lower_quartile"], values["upper_quartile"]], [place] * 2, color=_MARK, lw=1.4)
        axis.text(1.02, place, f"{values['median']:.2f}", fontsize=8, va="center")
    labels = ["FER class", *(label for label, *_ in _POSITIONS)]
    groups = ["emotion"] * 3 + ["mouth"] * 2
    axis.set_yticks(
        range(len(labels)), [f"{group}: {label}" for group, label in zip(groups, labels, strict=True)]
    )
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_xlim(0.0, 1.1)
    axis.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0])
    axis.spines["bottom"].set_bounds(0.0, 1.0)
    axis.set_title("share that goes with the codes of each clip", fontsize=9, loc="left")


def _draw_correlations(axis: Axes, values: Mapping[str, Any]) -> None:
    """How well the mouth follows either clip; a dotted line is the correlation of the clips themselves."""
    for place, name in enumerate(("jaw", "lip")):
        for offset, level, colour in ((-0.2, "top", _TOP), (0.2, "bottom", _BOTTOM)):
            cell = values[f"{name}_{level}"]
            axis.bar(place + offset, cell["median"], width=0.36, color=colour)
            axis.plot(
                [place + offset] * 2, [cell["lower_quartile"], cell["upper_quartile"]], color=_MARK, lw=1.4
            )
        sources = values[f"{name}_sources"]["median"]
        axis.plot([place - 0.45, place + 0.45], [sources] * 2, color=_MARK, lw=1.0, ls=":")
    axis.axhline(0.0, color=_MARK, lw=0.6)
    axis.set_xticks([0, 1], ["jaw opening", "lip vertices"])
    axis.set_title("correlation of its motion with each clip", fontsize=9, loc="left")
