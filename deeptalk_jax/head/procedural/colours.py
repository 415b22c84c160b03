"""Colours of the skin: red lips, warm cheeks and nose, dark nostrils, lid edges and eye sockets."""

import numpy as np

from deeptalk_jax.head.procedural import layout
from deeptalk_jax.head.procedural.numerics import bump, smoothstep
from deeptalk_jax.head.procedural.parts import SKIN_TONE
from deeptalk_jax.head.procedural.skin import Skin, nostril_darkness

_LIP_COLOUR = np.array([0.71, 0.42, 0.38])
_BLUSH = np.array([0.80, 0.50, 0.43])
_SHADE = np.array([0.58, 0.40, 0.33])


def _towards(albedo: np.ndarray, colour: np.ndarray, share: np.ndarray) -> np.ndarray:
    return albedo + share[:, None] * (colour - albedo)


def skin_albedo(skin: Skin) -> tuple[np.ndarray, np.ndarray]:
    """Computes the colour of the outer skin.

    Args:
        skin: the outer skin.

    Returns:
        The sRGB colour `[v, 3]`, and the share of lip red in it `[v]`.
    """
    points, plan = skin.points, skin.layout
    folded = points * np.where(points[:, :1] < 0, [[-1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]])
    front = smoothstep(20.0, 50.0, points[:, 2])
    albedo = np.tile(SKIN_TONE, (len(points), 1))
    albedo = _towards(albedo, _BLUSH, 0.55 * front * bump(folded, (40.0, -6.0), (16.0, 13.0)))
    albedo = _towards(albedo, _BLUSH, 0.50 * front * bump(points, (0.0, -4.0), (13.0, 10.0)))
    albedo = _towards(albedo, _BLUSH, 0.25 * front * bump(points, (0.0, -72.0), (14.0, 10.0)))
    around_eye = bump(folded, (31.0, 29.0), (17.0, 11.0))
    albedo = _towards(albedo, _SHADE, 0.30 * front * around_eye)
    albedo = _towards(albedo, np.array([0.10, 0.05, 0.05]), nostril_darkness(points))
    for rings in plan.eye_rings:
        albedo[rings[0]] = (0.30, 0.19, 0.16)  # lashes darken the lid edge
        albedo[rings[1]] = 0.55 * albedo[rings[1]] + 0.45 * np.array([0.45, 0.29, 0.24])
    lip_share = np.zeros(len(points))
    for ring, share in zip(plan.mouth_rings, (1.0, 1.0, 1.0, 1.0, 0.85, 0.12), strict=False):
        lip_share[ring] = share
    albedo = _towards(albedo, _LIP_COLOUR, lip_share)
    albedo[plan.mouth_rings[0]] *= 0.62
    assert len(layout.VERMILION_STEPS) == 5
    return albedo, lip_share
