"""Shapes the outer skin: facial details on the rough form, lips that close along the seam, and lids on the eyeballs.

Lengths are in millimetres.
"""

from dataclasses import dataclass

import numpy as np

from deeptalk_jax.head.procedural import layout, skull
from deeptalk_jax.head.procedural.layout import EYE_CENTRE, MOUTH_HALF_WIDTH, SkinLayout, seam_height
from deeptalk_jax.head.procedural.numerics import bump, smooth_max, smoothstep

EYEBALL_CENTRE = np.array([31.3, 30.0, 61.5])  # of the left eye
EYEBALL_RADIUS = 12.3
LID_RADIUS = 13.5

# (centre x, y), (sigma x, y), displacement (x, y, z), on the front of the head. Strokes with x > 0 are mirrored.
_STROKES = (
    ((0.0, 56.0), (9.0, 6.0), (0.0, 0.0, 1.0)),  # glabella
    ((26.0, 52.5), (13.0, 4.5), (0.0, 0.0, 1.8)),  # brow ridge
    ((0.0, 40.0), (6.0, 6.0), (0.0, 0.0, -1.5)),  # root of the nose
    ((17.0, -13.0), (3.4, 7.0), (0.0, 0.0, -2.0)),  # behind the ala
    ((24.0, -22.0), (4.5, 9.0), (0.0, 0.0, -1.4)),  # nasolabial fold
    ((0.0, -25.0), (2.6, 5.0), (0.0, 0.0, -1.1)),  # philtrum
    ((4.6, -25.0), (1.8, 5.0), (0.0, 0.0, 0.6)),  # columns of the philtrum
    ((0.0, -58.0), (14.0, 4.0), (0.0, 0.0, -3.2)),  # fold above the chin
    ((28.5, -43.0), (4.0, 5.5), (0.0, 0.0, -1.6)),  # corner of the mouth
    ((42.0, 4.0), (12.0, 10.0), (1.0, 0.0, 2.2)),  # cheekbone
    ((44.0, -28.0), (11.0, 14.0), (-1.0, 0.0, -2.0)),  # hollow of the cheek
    ((0.0, -74.0), (11.0, 8.0), (0.0, 0.0, 1.0)),  # chin
)


@dataclass(frozen=True)
class Skin:
    """The outer skin of the neutral head.

    Attributes:
        points: `[v, 3]` vertices, mm.
        layout: connectivity of the vertices.
        upper: `[v]` 1 above the mouth, 0 below it, and 0.5 at and beside the mouth corners.
    """

    points: np.ndarray
    layout: SkinLayout
    upper: np.ndarray


def _both_sides(points: np.ndarray, centre: tuple[float, float], sigma: tuple[float, float]) -> np.ndarray:
    """Returns a weight that is positive around the centre and negative around its mirror image.

    A centre on the midline has no mirror image.
    """
    here = bump(points, centre, sigma)
    if centre[0] == 0.0:
        return here
    return here - bump(points, (-centre[0], centre[1]), sigma)


def socket_depth(xy: np.ndarray) -> np.ndarray:
    """Returns z of the eye socket's floor at positions `[v, 2]` of either eye, `[v]` mm."""
    lateral = np.abs(xy[:, 0]) - EYE_CENTRE[0]
    height = xy[:, 1] - EYE_CENTRE[1]
    return 69.2 - 0.22 * lateral - 0.006 * lateral**2 + 0.10 * height


def sculpt(points: np.ndarray) -> np.ndarray:
    """Adds the details of the face to points `[v, 3]` of the rough surface, mm."""
    front = smoothstep(15.0, 45.0, points[:, 2])
    moved = points.copy()
    for centre, sigma, shift in _STROKES:
        signed = _both_sides(points, centre, sigma) * front
        moved[:, 0] += signed * shift[0]
        moved[:, 1:] += np.abs(signed)[:, None] * shift[1:]
    lateral = (np.abs(points[:, 0]) - EYE_CENTRE[0] - 0.5) / 19.5
    height = (points[:, 1] - EYE_CENTRE[1]) / np.where(points[:, 1] > EYE_CENTRE[1], 13.5, 15.0)
    socket = np.exp(-((lateral**2 + height**2) ** 1.7)) * front
    moved[:, 2] += socket * (socket_depth(points[:, :2]) - points[:, 2])
    nostril = sum(bump(points, (side * 6.6, -15.2, 93.5), (2.6, 2.6, 4.2)) for side in (-1.0, 1.0))
    moved += nostril[:, None] * np.array([0.0, 5.5, -3.5])
    return moved


def nostril_darkness(points: np.ndarray) -> np.ndarray:
    """Returns how deep inside a nostril each point `[v, 3]` of the rough surface is: `[v]`, 0 to 1."""
    dark = sum(bump(points, (side * 6.6, -15.4, 93.5), (2.3, 2.3, 4.5)) for side in (-1.0, 1.0))
    return np.clip(1.25 * dark, 0.0, 1.0)


def lid_surface(xy: np.ndarray, radius: float = LID_RADIUS) -> np.ndarray:
    """Returns z of the lid skin at positions `[v, 2]`: above the eyeball, or on the socket's floor beside it."""
    lateral = np.abs(xy[:, 0]) - EYEBALL_CENTRE[0]
    height = xy[:, 1] - EYEBALL_CENTRE[1]
    over_ball = EYEBALL_CENTRE[2] + np.sqrt(np.maximum(radius**2 - lateral**2 - height**2, 0.0))
    return smooth_max(over_ball, socket_depth(xy), 2.5)


def _lip_bulge(share: float, upper: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Returns the forward bulge of the red of the lips, mm, at a share of the way from the seam to the border."""
    fullness = np.maximum(1.0 - (x / (MOUTH_HALF_WIDTH + 1.5)) ** 2, 0.0) ** 0.7
    knots = (0.0, 0.2, 0.45, 0.72, 1.0)
    top = np.interp(share, knots, (-1.6, 2.0, 3.3, 3.3, 2.3))
    bottom = np.interp(share, knots, (-1.6, 2.6, 4.2, 3.8, 1.2))
    return fullness * np.where(upper, top, bottom)


def _place_mouth(points: np.ndarray, plan: SkinLayout) -> None:
    rings = plan.mouth_rings
    spoke = np.arange(rings.shape[1])
    upper = spoke <= rings.shape[1] // 2
    shares = layout.VERMILION_STEPS + tuple(1.0 + s for s in layout.PERIORAL_STEPS)
    for ring, share in zip(rings, shares, strict=True):
        x = points[ring, 0]
        if share <= 1.0:
            points[ring, 2] += _lip_bulge(share, upper, x)
        else:  # The bulge of the border fades out over the skin.
            points[ring, 2] += _lip_bulge(1.0, upper, points[rings[4], 0]) * (
                1.0 - smoothstep(1.0, 1.75, np.array(share))
            )
    seam = rings[0]
    opposite = seam[(-spoke) % len(spoke)]
    middle = 0.5 * (points[seam] + points[opposite])
    points[seam] = middle


def _place_lids(points: np.ndarray, plan: SkinLayout) -> None:
    for rings in plan.eye_rings:
        for ring, share in zip(rings, layout.LID_STEPS, strict=True):
            on_lid = 1.0 - float(smoothstep(0.45, 0.95, np.array(share)))
            crease = 0.9 * np.exp(-(((share - 0.40) / 0.09) ** 2))
            y_above = points[ring, 1] > EYE_CENTRE[1] + 1.5
            z = lid_surface(points[ring, :2]) - crease * y_above
            points[ring, 2] += on_lid * (z - points[ring, 2])


def upper_share(points: np.ndarray, side: np.ndarray | None = None) -> np.ndarray:
    """Returns the share to which points belong to the upper lip and the skin above it.

    Args:
        points: `[v, 3]` mm.
        side: `[v]` +1 or -1 for points known to be above or below the seam; 0 lets their height decide.

    Returns:
        `[v]`: 1 above the mouth, 0 below it, 0.5 at the mouth corners, with smooth transitions beside the mouth.
    """
    inside = MOUTH_HALF_WIDTH - np.abs(points[:, 0])
    height = points[:, 1] - seam_height(np.minimum(np.abs(points[:, 0]), MOUTH_HALF_WIDTH))
    sign = np.sign(height) if side is None else np.where(side != 0, side, np.sign(height))
    distance = np.hypot(np.maximum(inside, 0.0), height)
    # The larger width below the seam makes the lower lip leave the corner slowly, which rounds an open mouth.
    width = np.where(sign > 0, 9.0, 13.0) + np.maximum(-inside, 0.0)
    return 0.5 + 0.5 * sign * smoothstep(0.0, 1.0, distance / width)


def build_skin() -> Skin:
    """Builds the skin. The result is deterministic."""
    plan = layout.lay_out_skin()
    on_ring = ~np.isnan(plan.front_xy[:, 0])
    points = skull.surface_along(plan.directions)
    points[on_ring] = skull.surface_in_front(plan.front_xy[on_ring])
    points[plan.neck_ring] = skull.surface_at_height(layout.neck_turns(), layout.NECK_END_Y)
    points = sculpt(points)
    _place_mouth(points, plan)
    _place_lids(points, plan)
    side = np.zeros(len(points))
    half = layout.NUM_MOUTH_SPOKES // 2
    side[plan.mouth_rings[:, 1:half]] = 1.0
    side[plan.mouth_rings[:, half + 1 :]] = -1.0
    return Skin(points, plan, upper_share(points, side))
