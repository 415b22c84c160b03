"""The rough shape of a head: a smooth union of ellipsoids and capsules, sampled by ray marching.

Proportions follow average adult measurements (head height 230 mm, breadth 153 mm, length 192 mm, distance between
pupils 62 mm). No scan and no other head model was used. Lengths are in millimetres.
"""

import numpy as np

from deeptalk_jax.head.procedural.numerics import normalise, smooth_min

# Every point of the skin is visible from this centre, so directions from it parametrise the surface.
CENTRE = np.array([0.0, 12.0, -5.0])

# (centre, radii, width of the rounding at the union with the previous shapes). Shapes with x > 0 are mirrored.
_ELLIPSOIDS = (
    ((0.0, 68.0, -12.0), (75.0, 75.0, 92.0), 1.0),
    ((0.0, 52.0, 18.0), (62.0, 56.0, 67.0), 12.0),
    ((0.0, 2.0, 24.0), (60.0, 62.0, 56.0), 22.0),
    ((46.0, 9.0, 38.0), (19.0, 15.0, 24.0), 18.0),
    ((0.0, -42.0, 30.0), (49.0, 38.0, 48.0), 22.0),
    ((40.0, -46.0, 12.0), (13.0, 22.0, 26.0), 18.0),
    ((33.0, -20.0, 46.0), (20.0, 26.0, 24.0), 22.0),
    ((0.0, -34.0, 58.0), (28.0, 26.0, 29.0), 18.0),
    ((0.0, -69.0, 64.0), (20.0, 14.5, 20.0), 20.0),
    ((20.0, -62.0, 50.0), (20.0, 16.0, 24.0), 18.0),
    ((24.0, 49.0, 70.0), (20.0, 6.5, 12.0), 14.0),
)
# (start, end, radius at start, radius at end, width of the rounding)
_CAPSULES = (
    ((0.0, -10.0, -28.0), (0.0, -190.0, -42.0), 45.0, 53.0, 22.0),  # neck
    ((19.0, -20.0, -30.0), (8.0, -165.0, 2.0), 12.0, 10.0, 18.0),  # sternomastoid
    ((0.0, 40.0, 79.0), (0.0, 0.0, 97.0), 5.0, 6.2, 9.0),  # bridge of the nose
    ((0.0, -3.5, 97.5), (0.0, -5.5, 98.5), 9.2, 9.0, 6.0),  # tip
    ((10.5, -8.5, 90.0), (9.5, -9.0, 86.0), 7.2, 7.5, 5.0),  # ala
    ((0.0, -10.0, 98.0), (0.0, -17.0, 90.0), 4.2, 5.5, 5.0),  # columella
)


def _ellipsoid(points: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    scaled = (points - centre) / radii
    k0 = np.sqrt(np.einsum("vc,vc->v", scaled, scaled))
    inner = scaled / radii
    k1 = np.sqrt(np.einsum("vc,vc->v", inner, inner))
    return k0 * (k0 - 1.0) / np.maximum(k1, 1e-9)


def _capsule(
    points: np.ndarray, start: tuple, end: tuple, radius_start: float, radius_end: float
) -> np.ndarray:
    axis = np.subtract(end, start)
    offset = points - start
    along = np.clip(offset @ axis / (axis @ axis), 0.0, 1.0)
    nearest = offset - along[:, None] * axis
    return np.linalg.norm(nearest, axis=-1) - (radius_start + along * (radius_end - radius_start))


def signed_distance(points: np.ndarray) -> np.ndarray:
    """Computes the approximate signed distance to the rough head; it is negative inside.

    Args:
        points: `[v, 3]` mm.

    Returns:
        `[v]` mm; mirrored points have the same distance.
    """
    mirrored = np.abs(points[:, :1])
    folded = np.concatenate([mirrored, points[:, 1:]], axis=1)
    distance = None
    for centre, radii, width in _ELLIPSOIDS:
        part = _ellipsoid(folded, centre, radii)
        distance = part if distance is None else smooth_min(distance, part, width)
    for start, end, radius_start, radius_end, width in _CAPSULES:
        distance = smooth_min(distance, _capsule(folded, start, end, radius_start, radius_end), width)
    return distance


def _march(origins: np.ndarray, directions: np.ndarray, num_steps: int = 48) -> np.ndarray:
    """Follows rays from outside the head to the surface and returns the surface points `[v, 3]`."""
    points = origins.copy()
    for _ in range(num_steps):
        points += (0.9 * signed_distance(points))[:, None] * directions
    return points


def surface_along(directions: np.ndarray) -> np.ndarray:
    """Returns the outermost surface points `[v, 3]`, mm, in unit directions `[v, 3]` from `CENTRE`."""
    return _march(CENTRE + 240.0 * directions, -directions)


def surface_in_front(xy: np.ndarray) -> np.ndarray:
    """Returns the surface points `[v, 3]` visible from the front at positions `[v, 2]`, mm."""
    origins = np.concatenate([xy, np.full((len(xy), 1), 130.0)], axis=1)
    return _march(origins, np.broadcast_to([0.0, 0.0, -1.0], origins.shape))


def surface_at_height(turns: np.ndarray, y: float) -> np.ndarray:
    """Returns surface points `[v, 3]` around the neck at height y, mm.

    Args:
        turns: `[v]` angles about the vertical axis, radians; 0 is the front, and angles increase towards the left.
        y: height, mm.
    """
    inward = -np.stack([np.sin(turns), np.zeros_like(turns), np.cos(turns)], axis=-1)
    return _march(np.array([0.0, y, -36.0]) - 150.0 * inward, inward)


def direction_to(points: np.ndarray) -> np.ndarray:
    """Returns the unit directions `[v, 3]` from `CENTRE` to points `[v, 3]`."""
    return normalise(points - CENTRE)
