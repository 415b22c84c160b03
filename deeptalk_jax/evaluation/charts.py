"""Charts that several stages draw, as PNG: confusion matrices, reliability diagrams, values by group."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeptalk_jax.metrics.calibration import Reliability
from deeptalk_jax.metrics.classification import class_accuracy

# Of the palette of Okabe and Ito (2008), which colour-blind people tell apart; speech and motion everywhere.
SPEECH_COLOUR, MOTION_COLOUR = "#0072B2", "#D55E00"
_MARK, _GREY = "#222222", "#888888"
_DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    return Figure(figsize=(width, height), dpi=_DPI, facecolor="white", layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def dress(axis: Axes, title: str) -> None:
    """Title, small labels and no frame at the top and the right."""
    axis.set_title(title, fontsize=9, loc="left")
    axis.tick_params(labelsize=8, length=2.5)
    for spine in ("top", "right"):
        axis.spines[spine].set_visible(False)


def draw_confusions(confusions: Mapping[str, np.ndarray], classes: Sequence[str], across: str) -> bytes:
    """Confusion matrices side by side: colour is the share of a row, the numbers are counts.

    Args:
        confusions: by title, `[classes, classes]` counts, true class by row.
        classes: their names.
        across: what the columns are.
    """
    figure = new_figure(0.6 + 4.5 * len(confusions), 4.6)
    axes = figure.subplots(1, len(confusions), squeeze=False, sharey=True)[0]
    places = range(len(classes))
    for axis, (title, confusion) in zip(axes, confusions.items(), strict=True):
        share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if share[row, column] > 0.55 else _MARK
            axis.text(
                column,
                row,
                f"{confusion[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
        dress(axis, title)
        axis.set_xticks(places, classes, rotation=45, ha="right")
        axis.set_xlabel(across, fontsize=8)
        recall = axis.secondary_yaxis("right")
        recall.set_yticks(
            places, ["–" if np.isnan(value) else f"{value:.0%}" for value in class_accuracy(confusion)]
        )
        recall.tick_params(labelsize=8, length=0)
        recall.spines["right"].set_visible(False)
    axes[0].set_yticks(places, classes)
    axes[0].set_ylabel("true emotion (right: share found)", fontsize=8)
    return png(figure)


def draw_reliability(curve: Reliability) -> bytes:
    """How often pairs match that are given a probability, and how many are given it."""
    figure = new_figure(4.6, 5.0)
    upper, lower = figure.subplots(2, 1, height_ratios=(3.0, 1.0), sharex=True)
    upper.plot([0, 1], [0, 1], color=_GREY, lw=1.0, ls=":", label="calibrated")
    filled = curve.share > 0
    upper.plot(
        curve.confidence[filled],
        curve.frequency[filled],
        "o-",
        ms=4,
        lw=1.4,
        color=SPEECH_COLOUR,
        label="model",
    )
    upper.set_ylabel("share of the pairs that match", fontsize=8)
    upper.set_ylim(-0.02, 1.02)
    upper.legend(fontsize=8, frameon=False, loc="upper left")
    dress(upper, f"expected calibration error {curve.expected_calibration_error:.3f}")
    width = np.diff(curve.edges)
    lower.bar(curve.edges[:-1], curve.share, width=0.92 * width, align="edge", color=SPEECH_COLOUR)
    lower.set_yscale("log")
    lower.set_ylabel("share of pairs", fontsize=8)
    lower.set_xlabel("predicted probability of a match", fontsize=8)
    lower.set_xlim(-0.02, 1.02)
    dress(lower, "")
    return png(figure)
