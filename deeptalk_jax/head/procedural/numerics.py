"""Small smooth functions that the sculpting is made of. Lengths are millimetres throughout this package."""

import numpy as np


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, with zero slope at both; `low` may exceed `high` to fall instead."""
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def bump(points: np.ndarray, centre: tuple[float, ...], sigma: tuple[float, ...]) -> np.ndarray:
    """Gaussian of height 1: points `[v, 3]`, centre and sigma in mm; 2 numbers mean x and y only."""
    offset = (points[:, : len(centre)] - np.asarray(centre)) / np.asarray(sigma)
    return np.exp(-0.5 * np.einsum("vc,vc->v", offset, offset))


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Minimum with a rounded corner of the given width."""
    h = np.clip(0.5 + 0.5 * (b - a) / width, 0.0, 1.0)
    return b + (a - b) * h - width * h * (1.0 - h)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Maximum with a rounded corner of the given width."""
    return -smooth_min(-a, -b, width)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """`[v, 3]` divided by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
