"""Actions of lips, cheeks, jaw and tongue. Each function returns a displacement field `[v, 3]` in millimetres."""

import numpy as np

from deeptalk_jax.head.procedural.anatomy import Anatomy
from deeptalk_jax.head.procedural.fields import lips, mouth, outward, pair, spot, vector
from deeptalk_jax.head.procedural.numerics import smoothstep
from deeptalk_jax.head.procedural.skinning import JAW_JOINT, jaw_weight

# Jaw opening at which a lip_close coefficient of 1 exactly closes the lips.
LIP_CLOSE_JAW_RAD = 0.1


def _narrow(anatomy: Anatomy, weight: np.ndarray, share: float) -> np.ndarray:
    """Returns the field that moves vertices towards the midline by a share of their distance from it."""
    field = np.zeros_like(anatomy.points)
    field[:, 0] = -share * weight * anatomy.points[:, 0]
    return field


def _thin(anatomy: Anatomy, share: float) -> np.ndarray:
    """Returns the field that reduces the height of the lips' red; the skin around the lips follows."""
    field = np.zeros_like(anatomy.points)
    height = anatomy.above_seam
    field[:, 1] = -share * height * np.exp(-((height / 15.0) ** 4)) * mouth(anatomy, 40.0, 30.0)
    return field


def _lips_part(a: Anatomy) -> np.ndarray:
    zone = lips(a, 16.0)
    return vector(zone * a.upper, y=1.8, z=0.3) + vector(zone * (1 - a.upper), y=-3.2, z=-0.4)


def _lip_pucker(a: Anatomy) -> np.ndarray:
    zone = mouth(a, 42.0, 30.0)
    middle = np.exp(-((a.points[:, 0] / 15.0) ** 2) - (a.above_seam / 16.0) ** 2) * a.front
    pushed = vector(zone, z=2.0) + vector(middle, z=5.5)
    return _narrow(a, zone, 0.40) + pushed + vector(lips(a, 12.0), y=0.0) - 0.5 * _thin(a, 0.35)


def _lip_funnel(a: Anatomy) -> np.ndarray:
    zone = mouth(a, 40.0, 30.0)
    middle = np.exp(-((a.points[:, 0] / 20.0) ** 4) - (a.above_seam / 16.0) ** 2) * a.front
    opened = vector(middle * a.upper, y=3.2) + vector(middle * (1 - a.upper), y=-4.0)
    return _narrow(a, zone, 0.24) + vector(zone, z=1.2) + vector(middle, z=5.0) + opened


def _lip_press(a: Anatomy) -> np.ndarray:
    return (
        _thin(a, 0.42)
        + vector(lips(a, 9.0, 28.0), z=-2.2)
        + outward(a, pair(a, 26.0, -41.0, 8.0, 7.0), x=1.0)
    )


def _lip_close(a: Anatomy) -> np.ndarray:
    arm = a.points - JAW_JOINT
    sine, cosine = np.sin(LIP_CLOSE_JAW_RAD), np.cos(LIP_CLOSE_JAW_RAD)
    drop = np.zeros_like(arm)  # displacement of a vertex with jaw weight 1
    drop[:, 1] = (cosine - 1.0) * arm[:, 1] - sine * arm[:, 2]
    drop[:, 2] = sine * arm[:, 1] + (cosine - 1.0) * arm[:, 2]
    falloff = np.exp(-((a.above_seam / 17.0) ** 2)) * smoothstep(46.0, 22.0, np.abs(a.points[:, 0])) * a.front
    return (falloff * (0.28 - jaw_weight(a)))[:, None] * drop


def _upper_lip_suck(a: Anatomy) -> np.ndarray:
    zone = lips(a, 9.0) * a.upper
    return vector(zone, y=-1.6, z=-4.5) + _thin(a, 0.3) * a.upper[:, None]


def _lower_lip_suck(a: Anatomy) -> np.ndarray:
    zone = lips(a, 10.0) * (1 - a.upper)
    return vector(zone, y=3.2, z=-6.5) + vector(spot(a, 0.0, -55.0, 16.0, 8.0), y=1.5, z=0.5)


def _lip_tighten(a: Anatomy) -> np.ndarray:
    return _narrow(a, mouth(a, 40.0, 24.0), 0.14) + _thin(a, 0.33) + vector(lips(a, 9.0), z=-0.8)


def _upper_lip_protrude(a: Anatomy) -> np.ndarray:
    return vector(lips(a, 12.0) * a.upper, y=0.8, z=4.5)


def _lower_lip_protrude(a: Anatomy) -> np.ndarray:
    return vector(lips(a, 12.0) * (1 - a.upper), y=-0.8, z=5.0)


def _upper_lip_raise(a: Anatomy) -> np.ndarray:
    lip = spot(a, 11.5, -35.0, 9.0, 12.0, 11.0) * a.upper
    fold = spot(a, 22.0, -16.0, 7.0, 10.0)
    wing = spot(a, 13.0, -8.0, 6.0, 7.0)
    return vector(lip, y=6.0, z=0.6) + vector(fold, y=2.8, z=1.4) + vector(wing, x=0.8, y=1.8)


def _lower_lip_depress(a: Anatomy) -> np.ndarray:
    lip = spot(a, 11.5, -46.0, 9.5, 10.0, 13.0) * (1 - a.upper)
    return vector(lip, x=1.0, y=-6.0, z=-0.6)


def _lip_stretch(a: Anatomy) -> np.ndarray:
    corner = spot(a, 26.0, -41.5, 14.0, 11.0)
    return vector(corner, x=7.5, y=-1.2, z=-3.6) + vector(spot(a, 36.0, -58.0, 12.0, 12.0), x=2.0, y=-1.5)


def _lip_corner_pull(a: Anatomy) -> np.ndarray:
    corner = spot(a, 26.0, -40.5, 13.0, 12.0)
    cheek = spot(a, 38.0, -9.0, 12.0, 12.0)
    fold = spot(a, 29.0, -23.0, 4.5, 10.0)
    return (
        vector(corner, x=7.5, y=8.0, z=-5.0)
        + vector(cheek, x=2.2, y=4.2, z=3.8)
        + vector(fold, z=-1.8)
        + vector(spot(a, 14.0, -9.0, 5.0, 6.0), x=1.2, y=0.8)
        + vector(lips(a, 10.0) * a.upper, z=-0.6)
    )


def _lip_corner_depress(a: Anatomy) -> np.ndarray:
    corner = spot(a, 26.5, -42.0, 11.0, 9.0, 12.0)
    return vector(corner, x=1.0, y=-7.5, z=-1.6) + vector(spot(a, 27.0, -58.0, 9.0, 9.0), z=1.6)


def _dimple(a: Anatomy) -> np.ndarray:
    corner = spot(a, 27.0, -40.5, 9.5, 8.0)
    return vector(corner, x=5.0, y=3.0, z=-5.0) + vector(spot(a, 36.0, -34.0, 7.0, 9.0), x=1.5, z=2.0)


def _chin_raise(a: Anatomy) -> np.ndarray:
    chin = spot(a, 0.0, -69.0, 15.0, 9.0, 12.0)
    # Both lips move up together, so that closed lips stay closed.
    lower = spot(a, 0.0, -49.0, 17.0, 14.0, 9.0)
    bunched = pair(a, 7.0, -67.0, 4.5, 4.0)
    return vector(chin, y=4.0, z=1.0) + vector(lower, y=3.0, z=1.8) + vector(bunched, z=0.8)


def _mouth_shift(a: Anatomy) -> np.ndarray:
    return vector(mouth(a, 48.0, 34.0), x=7.0)


def _jaw_thrust(a: Anatomy) -> np.ndarray:
    return vector(jaw_weight(a), z=6.0)


def _jaw_shift(a: Anatomy) -> np.ndarray:
    return vector(jaw_weight(a), x=6.0)


def _tongue_tip_raise(a: Anatomy) -> np.ndarray:
    tip = smoothstep(46.0, 70.0, a.points[:, 2]) * a.part("tongue")
    return vector(tip, y=9.5, z=0.5)


def _tongue_out(a: Anatomy) -> np.ndarray:
    body = smoothstep(20.0, 68.0, a.points[:, 2]) * a.part("tongue")
    return vector(body, y=13.0, z=28.0)


def _cheek_puff(a: Anatomy) -> np.ndarray:
    return outward(a, pair(a, 41.0, -33.0, 13.0, 15.0), x=7.0, z=6.0) + vector(lips(a, 14.0), z=1.2)


def _cheek_suck(a: Anatomy) -> np.ndarray:
    return outward(a, pair(a, 42.0, -30.0, 12.0, 15.0), x=-5.5, z=-5.0)


def _nasolabial_deepen(a: Anatomy) -> np.ndarray:
    groove = pair(a, 23.0, -20.0, 3.8, 9.0)
    return vector(groove, z=-2.2) + outward(a, pair(a, 29.0, -12.0, 7.0, 9.0), x=0.6, y=1.8, z=1.6)


ACTIONS = {
    "lips_part": _lips_part,
    "lip_pucker": _lip_pucker,
    "lip_funnel": _lip_funnel,
    "lip_press": _lip_press,
    "lip_close": _lip_close,
    "upper_lip_suck": _upper_lip_suck,
    "lower_lip_suck": _lower_lip_suck,
    "lip_tighten": _lip_tighten,
    "upper_lip_protrude": _upper_lip_protrude,
    "lower_lip_protrude": _lower_lip_protrude,
    "upper_lip_raise": _upper_lip_raise,
    "lower_lip_depress": _lower_lip_depress,
    "lip_stretch": _lip_stretch,
    "lip_corner_pull": _lip_corner_pull,
    "lip_corner_depress": _lip_corner_depress,
    "dimple": _dimple,
    "chin_raise": _chin_raise,
    "mouth_shift_left": _mouth_shift,
    "jaw_thrust": _jaw_thrust,
    "jaw_shift_left": _jaw_shift,
    "tongue_tip_raise": _tongue_tip_raise,
    "tongue_out": _tongue_out,
    "cheek_puff": _cheek_puff,
    "cheek_suck": _cheek_suck,
    "nasolabial_deepen": _nasolabial_deepen,
}
