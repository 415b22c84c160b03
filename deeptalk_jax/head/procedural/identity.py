"""Identity directions of the embedded head: thirteen named differences between faces."""

import numpy as np

from deeptalk_jax.head.procedural.anatomy import Anatomy
from deeptalk_jax.head.procedural.fields import lips, mouth, outward, pair, spot, vector
from deeptalk_jax.head.procedural.numerics import smoothstep
from deeptalk_jax.head.procedural.skinning import jaw_weight


def _stretch(a: Anatomy, axis: int, centre: float, share: float) -> np.ndarray:
    field = np.zeros_like(a.points)
    field[:, axis] = share * (a.points[:, axis] - centre)
    return field


def _cranium(a: Anatomy) -> np.ndarray:
    field = np.zeros_like(a.points)
    field[:, 1] = 8.0 * smoothstep(50.0, 140.0, a.points[:, 1])
    return field


def _jaw_width(a: Anatomy) -> np.ndarray:
    low = smoothstep(-5.0, -55.0, a.points[:, 1]) * smoothstep(-125.0, -85.0, a.points[:, 1])
    field = np.zeros_like(a.points)
    field[:, 0] = 0.09 * low * smoothstep(-20.0, 10.0, a.points[:, 2]) * a.points[:, 0]
    return field


def _nose(a: Anatomy) -> np.ndarray:
    return vector(spot(a, 0.0, -4.0, 9.0, 14.0, 9.0), y=-0.6, z=3.6)


def _nose_width(a: Anatomy) -> np.ndarray:
    return outward(a, pair(a, 12.0, -9.0, 5.0, 9.0), x=1.9)


def _lip_fullness(a: Anatomy) -> np.ndarray:
    field = vector(lips(a, 9.0), z=1.6)
    field[:, 1] = 0.16 * a.above_seam * np.exp(-((a.above_seam / 13.0) ** 4)) * mouth(a, 40.0, 30.0)
    return field


def _mouth_width(a: Anatomy) -> np.ndarray:
    field = np.zeros_like(a.points)
    field[:, 0] = 0.10 * a.points[:, 0] * mouth(a, 46.0, 26.0)
    return field


SHAPES = {
    "head_width": lambda a: _stretch(a, 0, 0.0, 0.04),
    "head_height": lambda a: _stretch(a, 1, 30.0, 0.03),
    "head_length": lambda a: _stretch(a, 2, -10.0, 0.03),
    "cranium_height": _cranium,
    "jaw_width": _jaw_width,
    "chin_length": lambda a: vector(jaw_weight(a) * smoothstep(-52.0, -80.0, a.points[:, 1]), y=-5.0, z=1.0),
    "chin_prominence": lambda a: vector(spot(a, 0.0, -72.0, 16.0, 11.0), z=4.0),
    "nose_size": _nose,
    "nose_width": _nose_width,
    "lip_fullness": _lip_fullness,
    "mouth_width": _mouth_width,
    "brow_prominence": lambda a: vector(pair(a, 22.0, 51.0, 15.0, 7.0), z=2.4),
    "cheek_fullness": lambda a: outward(a, pair(a, 43.0, -22.0, 14.0, 17.0), x=3.5, z=3.0),
}


def shape_displacements(anatomy: Anatomy) -> np.ndarray:
    """Computes the identity directions.

    Returns:
        `[v, 3, 13]` mm per unit of a coefficient, symmetric, in the order of `SHAPES`. A unit is about one standard
        deviation between people.
    """
    fields = [anatomy.with_followers(shape(anatomy)) for shape in SHAPES.values()]
    return np.stack([0.5 * (field + anatomy.mirrored(field)) for field in fields], axis=-1)
