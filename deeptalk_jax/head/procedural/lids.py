"""Actions of the eyelids, which slide over the eyeball. Lengths are in millimetres."""

import numpy as np

from deeptalk_jax.head.procedural.anatomy import Anatomy
from deeptalk_jax.head.procedural.layout import LID_STEPS
from deeptalk_jax.head.procedural.numerics import smoothstep
from deeptalk_jax.head.procedural.skin import LID_RADIUS, lid_surface

# Blend shapes move a closing lid along a straight line instead of along the eyeball. The closed lid is lifted and the
# eyeball retracted by these amounts, so that the lid is outside the eyeball half-way too.
_CLOSED_LIFT = 0.9
_EYE_RETRACTION = 0.9
_MEETING = 0.22  # height where the lids meet, as a share of the opening from below


def _slide(
    a: Anatomy, shift_upper: np.ndarray, shift_lower: np.ndarray, lift: float, reach: float = 0.72
) -> np.ndarray:
    """Moves the lid edges of the left eye up by `[spokes]` mm; the rest of the lids follows on the eyeball's curve.

    Args:
        a: the neutral head.
        shift_upper: `[spokes]` upward displacement of the upper lid edge.
        shift_lower: `[spokes]` upward displacement of the lower lid edge.
        lift: distance of the displaced lids from their usual sphere.
        reach: share of the way to the outer ring where the displacement ends.

    Returns:
        The displacement field `[v, 3]`.
    """
    field = np.zeros_like(a.points)
    rings = a.layout.eye_rings[0]
    spoke = np.arange(rings.shape[1])
    shift = np.where(spoke <= rings.shape[1] // 2, shift_upper, shift_lower)
    strongest = max(float(np.abs(shift).max()), 1e-9)
    for ring, share in zip(rings, LID_STEPS, strict=True):
        follow = float(smoothstep(reach, 0.0, np.array(share)))
        xy = a.points[ring, :2]
        target = xy.copy()
        target[:, 1] += follow * shift
        curve = lid_surface(target, LID_RADIUS + lift) - lid_surface(xy, LID_RADIUS)
        field[ring, 1] = follow * shift
        field[ring, 2] = np.minimum(follow * 2.0, 1.0) * curve * np.abs(shift) / strongest
    return field


def shift_lids(a: Anatomy, *, upper_up: float = 0.0, lower_up: float = 0.0) -> np.ndarray:
    """Raises the middle of the left upper and lower lid edge by the given amounts; the eye corners stay in place."""
    edge = a.points[a.layout.eye_rings[0, 0]]
    across = (edge[:, 0] - edge[:, 0].mean()) / (0.5 * np.ptp(edge[:, 0]))
    profile = np.maximum(1.0 - across**2, 0.0) ** 0.75
    return _slide(a, upper_up * profile, lower_up * profile, lift=0.1)


def _upper_lid_raise(a: Anatomy) -> np.ndarray:
    return shift_lids(a, upper_up=2.9, lower_up=-0.5)


def _lid_tighten(a: Anatomy) -> np.ndarray:
    return shift_lids(a, upper_up=-1.7, lower_up=2.3)


def _eye_close(a: Anatomy) -> np.ndarray:
    edge = a.points[a.layout.eye_rings[0, 0]]
    opposite = edge[(-np.arange(len(edge))) % len(edge)]
    upper = np.arange(len(edge)) <= len(edge) // 2
    low = np.where(upper, opposite[:, 1], edge[:, 1])
    high = np.where(upper, edge[:, 1], opposite[:, 1])
    shift = low + _MEETING * (high - low) - edge[:, 1]
    field = _slide(a, shift, shift, lift=_CLOSED_LIFT, reach=0.85)
    field[a.part("left_eye"), 2] -= _EYE_RETRACTION
    return field


ACTIONS = {"upper_lid_raise": _upper_lid_raise, "lid_tighten": _lid_tighten, "eye_close": _eye_close}
