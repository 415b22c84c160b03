"""Charts that several evaluations share, as PNG: confusion matrices and reliability diagrams."""

from collections.abc import Mapping, Sequence

import numpy as np

from deeptalk_jax.metrics.calibration import Reliability
from deeptalk_jax.metrics.classification import class_accuracy
from deeptalk_jax.rendering.figure import GREY, INK, SPEECH_COLOUR, encode_png, new_figure, style_axes


def draw_confusions(confusions: Mapping[str, np.ndarray], classes: Sequence[str], across: str) -> bytes:
    """Draws confusion matrices side by side; the colour shows the share within a row, the numbers are counts.

    Args:
        confusions: `[classes, classes]` counts by title, with the true class as row.
        classes: names of the classes.
        across: label of the horizontal axis.
    """
    figure = new_figure(0.6 + 4.5 * len(confusions), 4.6)
    axes = figure.subplots(1, len(confusions), squeeze=False, sharey=True)[0]
    places = range(len(classes))
    for axis, (title, confusion) in zip(axes, confusions.items(), strict=True):
        share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
        axis.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
        for row, column in zip(*np.nonzero(confusion), strict=True):
            colour = "white" if share[row, column] > 0.55 else INK
            axis.text(
                column,
                row,
                f"{confusion[row, column]:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )
        style_axes(axis, title)
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
    return encode_png(figure)


def draw_reliability(curve: Reliability) -> bytes:
    """Draws the observed frequency of matches against their predicted probability, above a histogram of the latter."""
    figure = new_figure(4.6, 5.0)
    upper, lower = figure.subplots(2, 1, height_ratios=(3.0, 1.0), sharex=True)
    upper.plot([0, 1], [0, 1], color=GREY, lw=1.0, ls=":", label="calibrated")
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
    style_axes(upper, f"expected calibration error {curve.expected_calibration_error:.3f}")
    width = np.diff(curve.edges)
    lower.bar(curve.edges[:-1], curve.share, width=0.92 * width, align="edge", color=SPEECH_COLOUR)
    lower.set_yscale("log")
    lower.set_ylabel("share of pairs", fontsize=8)
    lower.set_xlabel("predicted probability of a match", fontsize=8)
    lower.set_xlim(-0.02, 1.02)
    style_axes(lower)
    return encode_png(figure)
