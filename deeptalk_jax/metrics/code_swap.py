"""What the levels of a prior hold, by exchanging codes between clips and looking whom the result takes after.

An interchange intervention (Geiger et al., NeurIPS 2021) on the codes: clip A and clip B are encoded, and the top codes
of one are decoded with the bottom codes of the other.
"""

from collections.abc import Sequence

import numpy as np


def position_between(mixed: np.ndarray, origin: np.ndarray, target: np.ndarray) -> float:
    """Where `mixed` lies along the line from `origin` (0) to `target` (1): its orthogonal projection.

    Args:
        mixed: array of any shape.
        origin: of the same shape.
        target: of the same shape.

    Returns:
        NaN where origin and target are the same point.

    Raises:
        ValueError: shapes differ.
    """
    if not mixed.shape == origin.shape == target.shape:
        raise ValueError(f"shapes differ: {mixed.shape}, {origin.shape}, {target.shape}")
    line = (target - origin).astype(np.float64)
    length = np.sum(line**2)
    return float(np.sum((mixed - origin) * line) / length) if length else float("nan")


def without_mean(trajectory: np.ndarray) -> np.ndarray:
    """`[t, ...]` less its mean over time: what moves, without the pose that it moves about."""
    return trajectory - trajectory.mean(axis=0, keepdims=True)


def trajectory_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson correlation of two trajectories `[t, ...]`, each coordinate less its mean over time.

    Returns:
        0 where either stands still.

    Raises:
        ValueError: shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {first.shape}, {second.shape}")
    first, second = (without_mean(np.asarray(x, np.float64)) for x in (first, second))
    norm = np.sqrt(np.sum(first**2) * np.sum(second**2))
    return float(np.sum(first * second) / norm) if norm else 0.0


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the finite values, and how many there are.

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
