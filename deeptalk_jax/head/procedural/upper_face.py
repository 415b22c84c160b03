"""Actions of brows, cheeks, nose and neck. Each function returns a displacement field `[v, 3]` in millimetres."""

import numpy as np

from deeptalk_jax.head.procedural.anatomy import Anatomy
from deeptalk_jax.head.procedural.fields import outward, pair, spot, vector
from deeptalk_jax.head.procedural.lids import shift_lids
from deeptalk_jax.head.procedural.numerics import smoothstep


def _cheek_raise(a: Anatomy) -> np.ndarray:
    cheek = spot(a, 37.0, 4.0, 14.0, 9.0, 14.0)
    crow = spot(a, 51.0, 28.0, 6.0, 7.0)
    return vector(cheek, y=4.2, z=2.6) + vector(crow, x=-0.8, y=-0.8, z=0.6) + shift_lids(a, lower_up=1.5)


def _nose_wrinkle(a: Anatomy) -> np.ndarray:
    side = spot(a, 9.5, 14.0, 5.5, 9.0)
    wing = spot(a, 13.0, -9.0, 6.0, 7.0)
    lip = spot(a, 9.0, -31.0, 9.0, 10.0, 9.0) * a.upper
    brow = spot(a, 11.0, 49.0, 9.0, 9.0, 6.0)
    bridge = spot(a, 3.0, 37.0, 6.0, 4.0)
    return (
        vector(side, y=2.6, z=1.6)
        + vector(wing, x=0.8, y=4.0, z=-0.6)
        + vector(lip, y=3.4)
        + vector(brow, x=-1.2, y=-3.2, z=1.0)
        + vector(bridge, z=1.0)
    )


def _nostril_dilate(a: Anatomy) -> np.ndarray:
    return outward(a, pair(a, 13.5, -10.0, 4.5, 6.0), x=2.4, z=0.4)


def _nostril_compress(a: Anatomy) -> np.ndarray:
    return outward(a, pair(a, 13.5, -10.0, 4.5, 6.0), x=-2.0)


def _inner_brow_raise(a: Anatomy) -> np.ndarray:
    brow = spot(a, 14.0, 52.0, 10.0, 17.0, 6.0)
    lid = spot(a, 20.0, 41.0, 8.0, 5.0)
    return vector(brow, x=-0.8, y=8.0, z=0.6) + vector(lid, y=1.2)


def _outer_brow_raise(a: Anatomy) -> np.ndarray:
    brow = spot(a, 40.0, 53.0, 12.0, 17.0, 6.5)
    return vector(brow, x=0.6, y=7.5, z=0.3) + vector(spot(a, 42.0, 41.0, 9.0, 5.0), y=1.4)


def _brow_lower(a: Anatomy) -> np.ndarray:
    inner = spot(a, 14.0, 50.0, 10.0, 12.0, 8.0)
    outer = spot(a, 34.0, 53.0, 12.0, 11.0, 8.0)
    return (
        vector(inner, x=-2.4, y=-6.0, z=2.2)
        + vector(outer, x=-1.0, y=-2.6, z=0.8)
        + vector(spot(a, 6.0, 52.0, 3.5, 8.0), z=0.8)
    )


def _neck_tighten(a: Anatomy) -> np.ndarray:
    points = a.points
    throat = smoothstep(-72.0, -90.0, points[:, 1]) * smoothstep(-30.0, 10.0, points[:, 2]) * a.part("skin")
    cords = np.exp(-(((np.abs(points[:, 0]) - 28.0) / 7.0) ** 2)) * throat
    return outward(a, cords, x=3.0, z=3.0) + outward(a, pair(a, 27.0, -46.0, 12.0, 9.0), x=1.5, y=-1.5)


ACTIONS = {
    "cheek_raise": _cheek_raise,
    "nose_wrinkle": _nose_wrinkle,
    "nostril_dilate": _nostril_dilate,
    "nostril_compress": _nostril_compress,
    "inner_brow_raise": _inner_brow_raise,
    "outer_brow_raise": _outer_brow_raise,
    "brow_lower": _brow_lower,
    "neck_tighten": _neck_tighten,
}
