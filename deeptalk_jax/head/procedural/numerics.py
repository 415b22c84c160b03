"""Smooth functions that define the shapes of the embedded head. Lengths are in millimetres in the whole package."""

import numpy as np


def smoothstep(low: float, high: float, x: np.ndarray) -> np.ndarray:
    """Rises from 0 at `low` to 1 at `high` with zero slope at both ends; falls if `low` exceeds `high`."""
    u = np.clip((x - low) / (high - low), 0.0, 1.0)
    return u * u * (3.0 - 2.0 * u)


def bump(points: np.ndarray, centre: tuple[float, ...], sigma: tuple[float, ...]) -> np.ndarray:
    """Returns a Gaussian of height 1 at points `[v, 3]`, `[v]`; a centre of two numbers uses x and y only."""
    offset = (points[:, : len(centre)] - np.asarray(centre)) / np.asarray(sigma)
    return np.exp(-0.5 * np.einsum("vc,vc->v", offset, offset))


def smooth_min(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Returns the minimum with a rounded corner of the given width."""
    h = np.clip(0.5 + 0.5 * (b - a) / width, 0.0, 1.0)
    return b + (a - b) * h - width * h * (1.0 - h)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """Returns the maximum with a rounded corner of the given width."""
    return -smooth_min(-a, -b, width)


def normalise(vectors: np.ndarray) -> np.ndarray:
    """Returns vectors `[v, 3]` divided by their lengths."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
