"""Pictures of DEE's space: a map of both towers' Gaussians, and what their variances go with."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from deeptalk_jax.evaluation.charts import MOTION_COLOUR, SPEECH_COLOUR, dress, new_figure, png
from deeptalk_jax.types import EMOTIONS, Gaussian

# Okabe and Ito (2008) with grey for black; in the order of EMOTIONS.
EMOTION_COLOURS = (
    "#777777", "#E69F00", "#0072B2", "#F0E442", "#CC79A7", "#009E73", "#D55E00", "#56B4E9",
)  # fmt: skip
_TOWERS = {"speech": ("o", SPEECH_COLOUR), "motion": ("^", MOTION_COLOUR)}
_EDGE, _GREY = "#222222", "#888888"
_MAX_CLIPS = 200  # on the map; more would hide one another


def principal_axes(means: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Principal component analysis of `[n, d]` points.

    Returns:
        Their centre `[d]`, the two directions of most variance `[2, d]` (the larger entry of each is positive) and
        the shares of the variance along them `[2]`.
    """
    centre = means.mean(axis=0)
    _, singular, directions = np.linalg.svd(means - centre, full_matrices=False)
    directions = directions[:2]
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    return centre, directions * np.sign(largest), np.square(singular[:2]) / np.sum(np.square(singular))


def projected_ellipse(variance: np.ndarray, directions: np.ndarray) -> tuple[float, float, float]:
    """Outline, at one standard deviation, of a Gaussian with diagonal covariance seen along two directions.

    Args:
        variance: `[d]`.
        directions: `[2, d]`, orthonormal.

    Returns:
        Width, height (both diameters) and angle in degrees, as matplotlib's Ellipse takes them.
    """
    eigenvalues, vectors = np.linalg.eigh(directions * variance @ directions.T)
    angle = np.degrees(np.arctan2(vectors[1, 1], vectors[0, 1]))
    return 2.0 * np.sqrt(eigenvalues[1]), 2.0 * np.sqrt(eigenvalues[0]), float(angle)


def draw_map(towers: Mapping[str, Gaussian], emotion: np.ndarray) -> bytes:
    """Means of both towers on the two principal axes that they share, with an ellipse for every Gaussian.

    Args:
        towers: "speech" and "motion", `[n, d]` each.
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
            *points[name][shown].T, s=20, marker=_TOWERS[name][0], zorder=2, linewidths=0.4, edgecolors=_EDGE,
            c=[EMOTION_COLOURS[label] for label in emotion[shown]],
        )  # fmt: skip
        dress(axis, f"{name}: {len(shown)} of {len(emotion)} clips")
        axis.set_xlabel(f"first principal axis ({shares[0]:.0%} of the variance of the means)", fontsize=8)
        axis.set_aspect("equal")
    axes[0].set_ylabel(f"second principal axis ({shares[1]:.0%})", fontsize=8)
    for axis, name in zip(axes, towers, strict=True):  # once both have set the limits that they share
        _label_clusters(axis, points[name], emotion)
    return png(figure)


def _label_clusters(axis: Axes, points: np.ndarray, emotion: np.ndarray) -> None:
    """Names beside the plot, one below the other, each with a line to the median of its clips."""
    labels = np.unique(emotion)
    medians = np.array([np.median(points[emotion == label], axis=0) for label in labels])
    low, high = axis.get_ylim()
    heights = apart(medians[:, 1], (high - low) / (len(EMOTIONS) + 1), low, high)
    for label, median, height in zip(labels, medians, heights, strict=True):
        axis.annotate(
            EMOTIONS[label], median, (1.03, height), textcoords=axis.get_yaxis_transform(), va="center",
            fontsize=8.5, color=_EDGE, zorder=3, annotation_clip=False,
            bbox={"boxstyle": "round,pad=0.25", "facecolor": EMOTION_COLOURS[label], "alpha": 0.45, "lw": 0},
            arrowprops={"arrowstyle": "-", "color": _EDGE, "lw": 0.6, "shrinkB": 0},
        )  # fmt: skip


def apart(places: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """Places moved so that each is `gap` or more from the next, in the same order, between `low` and `high`.

    Args:
        places: `[n]`.
        gap: at most `(high - low) / (n - 1)`.
        low: lower bound.
        high: upper bound.
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    # Less its step a place must not fall below those before it: a running maximum, then the bounds.
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
    """Total variance by intensity, and R@1 by intensity and by the query's variance.

    Args:
        variance: by tower, `[n]`.
        intensity: `[n]`, 1 the lowest.
        recall_by_intensity: by tower of the query, R@1 by intensity.
        recall_by_variance: by tower of the query, R@1 of groups of equal size, the smallest variances first.
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
        axis.axhline(chance, color=_GREY, lw=1.0, ls=":")
        axis.set_ylim(0.0, 1.02)
        axis.set_ylabel("R@1 by emotion", fontsize=8)
    for axis, title, label in (
        (spread, "total variance (box: quartiles; whisker: 5 to 95 %)", "intensity"),
        (by_intensity, "does the nearest clip have the emotion?", "intensity of the query"),
        (by_variance, "... by the query's variance", "tenth of the queries, smallest variance first"),
    ):
        dress(axis, title)
        axis.set_xlabel(label, fontsize=8)
    figure.legend(
        handles=[
            *(Line2D([], [], marker=m, color=c, label=f"{name} (query)") for name, (m, c) in _TOWERS.items()),
            Line2D([], [], color=_GREY, ls=":", label="chance"),
        ],
        loc="outside lower center", ncols=3, fontsize=8, frameon=False,
    )  # fmt: skip
    return png(figure)


def _boxes(axis: Axes, groups: Sequence[np.ndarray], places: np.ndarray, colour: str) -> None:
    """A box of the quartiles for every group."""
    axis.boxplot(
        groups, positions=places, widths=0.3, whis=(5, 95), showfliers=False, patch_artist=True,
        boxprops={"facecolor": colour, "alpha": 0.55, "edgecolor": colour}, medianprops={"color": _EDGE, "lw": 1.4},
        whiskerprops={"color": colour}, capprops={"color": colour}, manage_ticks=False,
    )  # fmt: skip
