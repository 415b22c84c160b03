"""Charts of DEE's embedding space: a map of the Gaussians, and their variance by intensity and retrieval success."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from deeptalk_jax.rendering.figure import (
    GREY,
    INK,
    MOTION_COLOUR,
    SPEECH_COLOUR,
    encode_png,
    new_figure,
    style_axes,
)
from deeptalk_jax.types import EMOTIONS, Gaussian

# Palette of Okabe and Ito (2008) with grey instead of black, in the order of EMOTIONS.
EMOTION_COLOURS = (
    "#777777", "#E69F00", "#0072B2", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#56B4E9",
)  # fmt: skip
_TOWERS = {"speech": ("o", SPEECH_COLOUR), "motion": ("^", MOTION_COLOUR)}
_MAX_CLIPS = 200  # clips on the map; more would hide one another


def principal_axes(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Computes the principal components of `[n, d]` points.

    Returns:
        The centre `[d]`; the two directions of largest variance `[2, d]`, with signs that make the largest entry of
        each positive; and their shares of the variance `[2]`.
    """
    centre = means.mean(axis=0)
    _, singular, directions = np.linalg.svd(means - centre, full_matrices=False)
    directions = directions[:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return centre, directions * np.sign(largest), np.square(singular[:2]) / np.sum(np.square(singular))


def projected_ellipse(variance: np.ndarray, directions: np.ndarray) -> tuple[float, float, float]:
    """Projects a Gaussian with diagonal covariance onto a plane and returns its one-sigma ellipse.

    Args:
        variance: `[d]`.
        directions: `[2, d]`, orthonormal axes of the plane.

    Returns:
        Width and height (diameters) and angle in degrees, the arguments of matplotlib's `Ellipse`.
    """
    eigenvalues, vectors = np.linalg.eigh(directions * variance @ directions.T)
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    return 2.0 * np.sqrt(eigenvalues[1]), 2.0 * np.sqrt(eigenvalues[0]), float(angle)


def draw_map(towers: Mapping[str, Gaussian], emotion: np.ndarray) -> bytes:
    """Draws the means of both towers on their common principal axes, with an ellipse for each Gaussian.

    Args:
        towers: Gaussians `[n, d]` of "speech" and "motion".
        emotion: `[n]` classes.
    """
    centre, directions, shares = principal_axes(np.concatenate([tower.mean for tower in towers.values()]))
    shown = np.unique(np.linspace(0, len(emotion) - 1, min(len(emotion), _MAX_CLIPS)).round().astype(int))
    points = {name: (tower.mean - centre) @ directions.T for name, tower in towers.items()}
    extent = np.ptp(np.concatenate(list(points.values())), axis=0) + 0.4
    figure = new_figure(11.5, float(np.clip(4.3 * extent[1] / extent[0] + 1.0, 3.2, 7.0)))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, (name, tower) in zip(axes, towers.items(), strict=True):
        variance = np.exp(tower.log_variance)
        for index in shown:
            width, height, angle = projected_ellipse(variance[index], directions)
            style = {"facecolor": EMOTION_COLOURS[emotion[index]], "edgecolor": "none", "alpha": 0.10}
            axis.add_patch(Ellipse(points[name][index], width, height, angle=angle, zorder=1, **style))
        axis.scatter(
            *points[name][shown].T, s=20, marker=_TOWERS[name][0], zorder=2, linewidths=0.4, edgecolors=INK,
            c=[EMOTION_COLOURS[label] for label in emotion[shown]],
        )  # fmt: skip
        style_axes(axis, f"{name}: {len(shown)} of {len(emotion)} clips")
        axis.set_xlabel(f"first principal axis ({shares[0]:.0%} of the variance of the means)", fontsize=8)
        axis.set_aspect("equal")
    axes[0].set_ylabel(f"second principal axis ({shares[1]:.0%})", fontsize=8)
    for axis, name in zip(axes, towers, strict=True):  # after both have set their common limits
        _label_clusters(axis, points[name], emotion)
    return encode_png(figure)


def _label_clusters(axis: Axes, points: np.ndarray, emotion: np.ndarray) -> None:
    """Writes the names of the emotions beside the plot, each with a line to the median of its clips."""
    labels = np.unique(emotion)
    medians = np.array([np.median(points[emotion == label], axis=0) for label in labels])
    low, high = axis.get_ylim()
    heights = spread_labels(medians[:, 1], (high - low) / (len(EMOTIONS) + 1), low, high)
    for label, median, height in zip(labels, medians, heights, strict=True):
        axis.annotate(
            EMOTIONS[label], median, (1.03, height), textcoords=axis.get_yaxis_transform(), va="center",
            fontsize=8.5, color=INK, zorder=3, annotation_clip=False,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": EMOTION_COLOURS[label], "alpha": 0.45, "lw": 0},
            arrowprops={"arrowstyle": "-", "color": INK, "lw": 0.6, "shrinkB": 0},
        )  # fmt: skip


def spread_labels(places: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Moves label positions so that neighbours are at least `gap` apart and all lie between `low` and `high`.

    The order is kept.

    Args:
        places: `[n]` positions.
        gap: at most `(high - low) / (n - 1)`.
        low: lower bound.
        high: upper bound.
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    # After subtracting i gaps, position i must be at least that of its predecessors: a running maximum.
    moved = np.maximum.accumulate(np.clip(places[order], low, high) - steps)
    result = np.empty(len(places))
    result[order] = np.minimum(moved, high - steps[-1]) + steps
    return result


def draw_variances(
    variance: Mapping[str, np.ndarray],
    intensity: np.ndarray,
    recall_by_intensity: Mapping[str, Mapping[int, float]],
    recall_by_variance: Mapping[str, Sequence[float]],
    chance: float,
) -> bytes:
    """Draws the total variance by intensity, and R@1 by intensity and by the variance of the query.

    Args:
        variance: `[n]` total variances by tower.
        intensity: `[n]`, from 1.
        recall_by_intensity: R@1 by tower of the query, then by intensity.
        recall_by_variance: R@1 of groups of equal size by tower of the query, smallest variances first.
        chance: R@1 of a gallery in random order.
    """
    figure = new_figure(11.0, 3.6)
    spread, by_intensity, by_variance = figure.subplots(1, 3)
    levels = np.unique(intensity)
    for offset, (name, values) in zip((-0.18, 0.18), variance.items(), strict=True):
        _boxes(spread, [values[intensity == level] for level in levels], levels + offset, _TOWERS[name][1])
    for name, (marker, colour) in _TOWERS.items():
        style: dict[str, Any] = {"marker": marker, "color": colour, "ms": 5, "lw": 1.4}
        recalls = recall_by_intensity[name]
        by_intensity.plot(list(recalls), list(recalls.values()), **style)
        groups = recall_by_variance[name]
        by_variance.plot(np.arange(1, len(groups) + 1), groups, **style)
    for axis in (spread, by_intensity):
        axis.set_xticks(levels)
        axis.set_xlim(levels[0] - 0.5, levels[-1] + 0.5)
    for axis in (by_intensity, by_variance):
        axis.axhline(chance, color=GREY, lw=1.0, ls=":")
        axis.set_ylim(0.0, 1.02)
        axis.set_ylabel("R@1 by emotion", fontsize=8)
    for axis, title, label in (
        (spread, "total variance (box: quartiles; whisker: 5 to 95 %)", "intensity"),
        (by_intensity, "does the nearest clip have the emotion?", "intensity of the query"),
        (by_variance, "... by the query's variance", "tenth of the queries, smallest variance first"),
    ):
        style_axes(axis, title)
        axis.set_xlabel(label, fontsize=8)
    figure.legend(
        handles=[
            *(Line2D([], [], marker=m, color=c, label=f"{name} (query)") for name, (m, c) in _TOWERS.items()),
            Line2D([], [], color=GREY, ls=":", label="chance"),
        ],
        loc="outside lower center", ncols=3, fontsize=8, frameon=False,
    )  # fmt: skip
    return encode_png(figure)


def _boxes(axis: Axes, groups: Sequence[np.ndarray], places: np.ndarray, colour: str) -> None:
    """Draws a box plot of each group: quartiles, with whiskers at 5 and 95 %."""
    axis.boxplot(
        groups, positions=places, widths=0.3, whis=(5, 95), showfliers=False, patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.55, "edgecolor": colour}, medianprops={"color": INK, "lw": 1.4},
        whiskerprops={"color": colour}, capprops={"color": colour}, manage_ticks=False,
    )  # fmt: skip
