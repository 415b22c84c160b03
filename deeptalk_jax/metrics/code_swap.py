"""Information in the levels of a prior, measured by exchanging codes between clips.

It is an interchange intervention (Geiger et al., NeurIPS 2021) on the codes: two clips are encoded, the top codes of
one are decoded with the bottom codes of the other, and the result is compared with both clips.
"""

from collections.abc import Sequence

import numpy as np


def position_between(mixed: np.ndarray, origin: np.ndarray, target: np.ndarray) -> float:
    """Returns the position of the orthogonal projection of `mixed` on the line from `origin` (0) to `target` (1).

    Args:
        mixed: point as an array of any shape.
        origin: point of the same shape.
        target: point of the same shape.

    Returns:
        The position; NaN if `origin` and `target` are equal.

    Raises:
        ValueError: shapes differ.
    """
    if not mixed.shape == origin.shape == target.shape:
        raise ValueError(f"shapes differ: {mixed.shape}, {origin.shape}, {target.shape}")
    line = (target - origin).astype(np.float64)
    length = np.sum(line**2)
    return float(np.sum((mixed - origin) * line) / length) if length else float("nan")


def without_mean(trajectory: np.ndarray) -> np.ndarray:
    """Subtracts the mean over time from a trajectory `[t, ...]`, which leaves the motion without the mean pose."""
    return trajectory - trajectory.mean(axis=0, keepdims=True)


def trajectory_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the Pearson correlation of two trajectories `[t, ...]`, pooled over coordinates without their means.

    Returns:
        The correlation; 0 if either trajectory is constant.

    Raises:
        ValueError: shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {first.shape}, {second.shape}")
    first, second = (without_mean(np.asarray(x, np.float64)) for x in (first, second))
    norm = np.sqrt(np.sum(first**2) * np.sum(second**2))
    return float(np.sum(first * second) / norm) if norm else 0.0


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns median, quartiles and number of the finite values.

    Raises:
        ValueError: no value is finite.
    """
    finite = np.asarray(values, np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        raise ValueError(f"none of {len(values)} values is finite")
    lower, median, upper = np.quantile(finite, [0.25, 0.5, 0.75])
    return {
        "median": float(median),
        "lower_quartile": float(lower),
        "upper_quartile": float(upper),
        "num": len(finite),
    }
