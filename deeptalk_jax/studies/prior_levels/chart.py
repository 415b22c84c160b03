"""Chart of the motion prior's two levels: which clip a mixture of their codes resembles; see `measure`."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from deeptalk_jax.rendering.figure import INK, encode_png, new_figure, style_axes

_TOP, _BOTTOM, _NEITHER = "#4c6a92", "#e0a458", "#cccccc"
_HEIGHT = 0.6
# Rows of the left panel below the row of FER's class: label, kind of pairs, measure.
_POSITIONS = (
    ("DEE embedding", "other_emotion", "emotion_embedding"),
    ("mean face", "other_emotion", "mean_face"),
    ("jaw opening", "other_sentence", "jaw_motion"),
    ("lip vertices", "other_sentence", "lip_motion"),
)


def draw_levels(report: Mapping[str, Any]) -> bytes:
    """Draws which source clip the mixtures resemble, and the correlations of their mouth motion, as a PNG.

    Args:
        report: content of the JSON file that the study writes.
    """
    figure = new_figure(9.6, 4.0)
    positions, correlations = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    _draw_classes(positions, report["other_emotion"])
    _draw_positions(positions, report)
    _draw_correlations(correlations, report["other_sentence"])
    figure.legend(
        handles=[
            Patch(color=_TOP, label="like the clip of the top codes"),
            Patch(color=_BOTTOM, label="like the clip of the bottom codes"),
            Patch(color=_NEITHER, label="neither"),
            Line2D([], [], color=INK, ls=":", label="between the two clips"),
        ],
        loc="outside upper center", ncols=4, fontsize=8, frameon=False,
    )  # fmt: skip
    figure.supxlabel(
        f"emotion: {report['other_emotion']['num_pairs']} pairs of clips with one sentence in two emotions; "
        f"mouth: {report['other_sentence']['num_pairs']} pairs with two sentences in one emotion\n"
        "bars: medians over pairs (FER class: share of all exchanges); lines: quartiles",
        fontsize=8,
    )
    return encode_png(figure)


def _draw_classes(axis: Axes, values: Mapping[str, Any]) -> None:
    """Draws the top row: the shares of mixtures with the FER class of either clip."""
    top, bottom = (values[f"class_{level}"]["mean"] or 0.0 for level in ("top", "bottom"))
    axis.barh(0, top, color=_TOP, height=_HEIGHT)
    axis.barh(0, 1.0 - top - bottom, left=top, color=_NEITHER, height=_HEIGHT)
    axis.barh(0, bottom, left=1.0 - bottom, color=_BOTTOM, height=_HEIGHT)
    axis.text(1.02, 0, f"{top:.2f}", fontsize=8, va="center")


def _draw_positions(axis: Axes, report: Mapping[str, Any]) -> None:
    """Draws the other rows: bars from 0 to 1, whose blue part is the share of the clip of the top codes."""
    for place, (_, kind, measure) in enumerate(_POSITIONS, start=1):
        values = report[kind][measure]
        median = min(max(values["median"], 0.0), 1.0)
        axis.barh(place, median, color=_TOP, height=_HEIGHT)
        axis.barh(place, 1.0 - median, left=median, color=_BOTTOM, height=_HEIGHT)
        axis.plot([values["lower_quartile"], values["upper_quartile"]], [place] * 2, color=INK, lw=1.4)
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
    style_axes(axis, "resemblance to the clip of either level's codes")


def _draw_correlations(axis: Axes, values: Mapping[str, Any]) -> None:
    """Draws how well the mouth follows either clip; a dotted line is the correlation between the clips."""
    for place, name in enumerate(("jaw", "lip")):
        for offset, level, colour in ((-0.2, "top", _TOP), (0.2, "bottom", _BOTTOM)):
            cell = values[f"{name}_{level}"]
            axis.bar(place + offset, cell["median"], width=0.36, color=colour)
            axis.plot(
                [place + offset] * 2, [cell["lower_quartile"], cell["upper_quartile"]], color=INK, lw=1.4
            )
        sources = values[f"{name}_sources"]["median"]
        axis.plot([place - 0.45, place + 0.45], [sources] * 2, color=INK, lw=1.0, ls=":")
    axis.axhline(0.0, color=INK, lw=0.6)
    axis.set_xticks([0, 1], ["jaw opening", "lip vertices"])
    style_axes(axis, "correlation of the motion with either clip")
