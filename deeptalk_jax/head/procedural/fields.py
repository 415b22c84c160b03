"""Building blocks of displacement fields: weights over the face and vectors scaled by them.

Lengths are in millimetres. Weights are `[v]`, displacements `[v, 3]`.
"""

import numpy as np

from deeptalk_jax.head.procedural.anatomy import Anatomy
from deeptalk_jax.head.procedural.numerics import smoothstep


def spot(
    anatomy: Anatomy, x: float, y: float, sigma_x: float, sigma_up: float, sigma_down: float | None = None
) -> np.ndarray:
    """Returns a Gaussian weight `[v]` around (x, y) in the front view.

    The height may have different widths above and below y. The weight is 0 behind the ears and on rigid parts.
    """
    points = anatomy.points
    height = points[:, 1] - y
    sigma_y = np.where(height > 0, sigma_up, sigma_up if sigma_down is None else sigma_down)
    return np.exp(-0.5 * (((points[:, 0] - x) / sigma_x) ** 2 + (height / sigma_y) ** 2)) * anatomy.front


def pair(
    anatomy: Anatomy, x: float, y: float, sigma_x: float, sigma_up: float, sigma_down: float | None = None
) -> np.ndarray:
    """Returns the weight `[v]` of a spot and its mirror image; arguments as in `spot`."""
    sides = (spot(anatomy, sign * x, y, sigma_x, sigma_up, sigma_down) for sign in (1.0, -1.0))
    return np.maximum(*sides)


def mouth(anatomy: Anatomy, reach_x: float = 36.0, reach_y: float = 22.0) -> np.ndarray:
    """Returns a weight `[v]` that is 1 at the lips and falls to 0 at the given distances from the mouth centre, mm."""
    radius = np.hypot(anatomy.points[:, 0] / reach_x, anatomy.above_seam / reach_y)
    return smoothstep(1.0, 0.30, radius) * anatomy.front


def lips(anatomy: Anatomy, height: float = 11.0, half_width: float = 25.0) -> np.ndarray:
    """Returns a weight `[v]` that is 1 along the seam and falls off vertically and towards the mouth corners."""
    across = np.maximum(1.0 - (anatomy.points[:, 0] / half_width) ** 2, 0.0)
    return np.exp(-((anatomy.above_seam / height) ** 2)) * across * anatomy.front


def vector(weight: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    """Returns the displacement (x, y, z) in mm times a weight `[v]`, as `[v, 3]`."""
    return weight[:, None] * np.array([x, y, z])


def outward(
    anatomy: Anatomy, weight: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0
) -> np.ndarray:
    """Returns `vector` with x pointing away from the midline on both sides; x falls to 0 on the midline."""
    field = vector(weight, x, y, z)
    field[:, 0] *= np.tanh(anatomy.points[:, 0] / 6.0)
    return field
