"""The parts of the embedded head except the outer skin: eyes, teeth, tongue, mouth interior, ears, brows and hair.

Lengths are in millimetres.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from deeptalk_jax.head.procedural import layout, skull
from deeptalk_jax.head.procedural.layout import ring_faces
from deeptalk_jax.head.procedural.numerics import normalise, smoothstep
from deeptalk_jax.head.procedural.skin import EYEBALL_CENTRE, EYEBALL_RADIUS, sculpt

SKIN_TONE = np.array([0.80, 0.61, 0.51])
GUM_COLOUR = (0.62, 0.30, 0.29)
_TOOTH_COLOUR = np.array([0.91, 0.88, 0.80])
_HAIR_COLOUR = np.array([0.20, 0.135, 0.095])


@dataclass(frozen=True)
class Part:
    """A separate mesh of the head, attached to or behind the outer skin.

    Attributes:
        kind: name of the part, e.g. "left_eye".
        points: `[v, 3]` vertices, mm.
        faces: `[f, 3]` vertex indices, counter-clockwise as seen from outside.
        material: `[v]` material names.
        albedo: `[v, 3]` sRGB colour, 0 to 1.
    """

    kind: str
    points: np.ndarray
    faces: np.ndarray
    material: list[str]
    albedo: np.ndarray


def mirrored(part: Part, kind: str) -> Part:
    """Returns the mirror image of a part, named `kind`."""
    return Part(kind, part.points * [-1.0, 1.0, 1.0], part.faces[:, ::-1], part.material, part.albedo)


def grid_faces(rows: int, columns: int, *, closed: bool = False) -> np.ndarray:
    """Returns the triangles of a grid of vertices numbered row by row; `closed` joins the last column to the first."""
    index = np.arange(rows * columns).reshape(rows, columns)
    if closed:
        return np.concatenate([ring_faces(a, b) for a, b in itertools.pairwise(index)])
    quad = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], axis=-1).reshape(-1, 4)
    return np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])


# (angle from the gaze direction in degrees, material, sRGB colour). Pairs of close rings give sharp borders.
_EYE_RINGS = (
    (0.4, "pupil", (0.02, 0.02, 0.02)),
    (10.3, "pupil", (0.02, 0.02, 0.02)),
    (11.2, "iris", (0.36, 0.27, 0.16)),
    (17.0, "iris", (0.32, 0.24, 0.15)),
    (23.0, "iris", (0.24, 0.19, 0.13)),
    (27.2, "iris", (0.12, 0.10, 0.08)),
    (29.2, "eye_white", (0.86, 0.84, 0.81)),
    (36.0, "eye_white", (0.90, 0.88, 0.86)),
    (50.0, "eye_white", (0.88, 0.85, 0.83)),
    (68.0, "eye_white", (0.84, 0.76, 0.74)),
    (90.0, "eye_white", (0.75, 0.62, 0.60)),
    (120.0, "eye_white", (0.75, 0.62, 0.60)),
)


def eyeball() -> Part:
    """Builds the left eyeball, looking straight ahead."""
    turn = 2.0 * np.pi * np.arange(32) / 32
    points, material, albedo = [], [], []
    for angle_deg, name, colour in _EYE_RINGS:
        angle = np.radians(angle_deg)
        cornea = 0.75 * np.exp(-((angle_deg / 24.0) ** 2))
        ring = np.stack(
            [np.sin(angle) * np.cos(turn), np.sin(angle) * np.sin(turn), np.full(32, np.cos(angle))], -1
        )
        points.append(EYEBALL_CENTRE + (EYEBALL_RADIUS + cornea) * ring)
        material += [name] * 32
        albedo.append(np.tile(colour, (32, 1)))
    faces = grid_faces(len(_EYE_RINGS), 32, closed=True)
    return Part("left_eye", np.concatenate(points), faces, material, np.concatenate(albedo))


def _arch(length: np.ndarray, front_z: float, half_width: float, depth: float) -> np.ndarray:
    """Evaluates a dental arch at signed arc lengths from its middle.

    Returns:
        `[n, 4]`: x, z, and the x and z components of the outward normal.
    """
    angle = np.linspace(-1.45, 1.45, 800)
    x, z = half_width * np.sin(angle), front_z - depth * (1.0 - np.cos(angle))
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(z)))])
    arc -= 0.5 * arc[-1]
    found = np.interp(length, arc, angle)
    normal = normalise(
        np.stack([np.sin(found) / half_width, np.cos(found) / depth, np.zeros_like(found)], -1)
    )
    return np.stack(
        [half_width * np.sin(found), front_z - depth * (1.0 - np.cos(found)), *normal[:, :2].T], -1
    )


def teeth(*, upper: bool) -> Part:
    """Builds the upper or lower row of teeth with its gum."""
    widths = (8.3, 6.6, 7.4, 6.8, 6.8, 9.5) if upper else (5.4, 5.9, 6.8, 7.0, 7.0, 10.0)
    heights = (9.6, 8.8, 9.8, 8.4, 7.8, 7.2) if upper else (8.2, 8.4, 9.2, 8.0, 7.4, 7.0)
    front_z, half_width, depth = (79.5, 26.0, 38.0) if upper else (77.2, 24.0, 36.0)
    biting_y, direction = (-43.8, 1.0) if upper else (-44.2, -1.0)
    columns = []  # (arc length, inset at the side, rise of the corner, tooth height, darkness)
    start = 0.0
    for width, height in zip(widths, heights, strict=True):
        for share, inset, rise, dark in (
            (0.02, 1.1, 0.9, 0.28),
            (0.16, 0.1, 0.15, 0.0),
            (0.5, -0.25, 0.0, 0.0),
            (0.84, 0.1, 0.2, 0.0),
            (0.98, 1.1, 1.0, 0.28),
        ):
            columns.append((start + share * width, inset, rise, height, dark))
        start += width
    half = np.array(columns)
    table = np.concatenate([half[::-1] * [-1.0, 1, 1, 1, 1], half])
    arch = _arch(table[:, 0], front_z, half_width, depth)
    # (share of the tooth height, inset, is gum): two rows on the back, then edge, body, neck of the tooth, and gum.
    rows = (
        (0.9, 4.2, 0),
        (0.1, 3.2, 0),
        (0.0, 0.7, 0),
        (0.16, 0.05, 0),
        (0.6, 0.0, 0),
        (0.97, 0.5, 0),
        (1.03, -0.1, 1),
        (1.7, 0.3, 1),
    )
    points, albedo, material = [], [], []
    for share, row_inset, gum in rows:
        inset = row_inset + (0.0 if gum else 1.0) * table[:, 1]
        rise = table[:, 2] * (1.0 - min(share, 1.0)) * (share < 0.5)
        y = biting_y + direction * (share * table[:, 3] + rise)
        points.append(np.stack([arch[:, 0] - inset * arch[:, 2], y, arch[:, 1] - inset * arch[:, 3]], -1))
        back = np.clip(np.abs(table[:, 0]) / 42.0, 0.0, 1.0)
        tone = np.asarray(GUM_COLOUR) if gum else _TOOTH_COLOUR
        shade = (1.0 - 0.35 * back) * (1.0 - (0.2 if gum else 1.0) * table[:, 4])
        albedo.append(shade[:, None] * tone)
        material += ["inner_mouth" if gum else "teeth"] * len(table)
    faces = grid_faces(len(rows), len(table))
    if not upper:
        faces = faces[:, ::-1]
    return Part(
        "upper_teeth" if upper else "lower_teeth",
        np.concatenate(points),
        faces,
        material,
        np.concatenate(albedo),
    )


def tongue() -> Part:
    """Builds a resting tongue: flat, with a groove in the middle, and its tip behind the lower teeth."""
    around, along = 20, 12
    turn = 2.0 * np.pi * np.arange(around) / around
    polar = np.linspace(0.04, np.pi - 0.3, along)
    points = []
    for angle in polar:
        width = 17.5 * np.sin(angle) ** 0.62
        height = 7.5 * np.sin(angle) ** 0.8
        x = width * np.sin(turn)
        y = (
            -53.0
            + height * np.cos(turn)
            - 1.6 * np.exp(-((x / 4.0) ** 2)) * (np.cos(turn) > 0.3) * np.sin(angle)
        )
        z = 45.0 + 27.0 * np.cos(angle)
        y = y - 0.004 * (z - 55.0) ** 2 * (z < 55.0)
        points.append(np.stack([x, y, np.full(around, z)], -1))
    colour = np.array([0.70, 0.36, 0.35])
    albedo = np.tile(colour, (around * along, 1))
    faces = grid_faces(along, around, closed=True)[:, ::-1]
    return Part("tongue", np.concatenate(points), faces, ["tongue"] * len(albedo), albedo)


def ear() -> Part:
    """Builds the left ear: a concave sheet with a rolled rim."""
    around = 36
    turn = 2.0 * np.pi * np.arange(around) / around
    # Outline in the plane of the ear, x forward and y up: wider at the top, with a lobe at the bottom.
    radius_x = 15.5 + 2.2 * np.sin(turn) - 1.5 * np.cos(2 * turn)
    outline = np.stack([radius_x * np.cos(turn), 30.5 * np.sin(turn) + 1.2 * np.cos(turn)], -1)
    # The rim rolls everywhere except at the lobe and the front.
    helix = smoothstep(-0.75, -0.1, np.sin(turn) - 0.55 * np.cos(turn))
    behind = smoothstep(14.0, -14.0, outline[:, 0])
    # (share of the outline, height, additional height on the rolled rim)
    profile = (
        (0.0, -4.5, 0.0),
        (0.22, -4.6, 0.0),
        (0.42, -2.5, 0.0),
        (0.55, 0.6, 0.6),
        (0.68, 0.7, 0.2),
        (0.80, 0.5, -1.6),
        (0.91, 0.6, 1.4),
        (1.0, 0.0, 1.6),
        (1.02, -2.0, 0.2),
        (0.9, -5.0, -1.0),
        (0.62, -14.0, 0.0),
    )
    points, albedo = [], []
    for share, height, rolled in profile:
        shift = np.array([-1.5, -2.0]) * (1.0 - min(share, 1.0))
        plane = outline * max(share, 0.02) + shift
        out = height + rolled * helix + 13.0 * behind * min(share, 1.0) ** 1.2 - 1.0
        points.append(np.stack([out, plane[:, 1], plane[:, 0]], -1))
        tone = SKIN_TONE * (0.80 if share < 0.3 else 0.93) * np.array([1.03, 0.95, 0.93])
        albedo.append(np.tile(tone, (around, 1)))
    local = np.concatenate(points)
    tilt = np.radians(-12.0)  # the ear leans back
    c, s = np.cos(tilt), np.sin(tilt)
    y, z = c * local[:, 1] - s * local[:, 2], s * local[:, 1] + c * local[:, 2]
    placed = np.stack([66.5 + local[:, 0], 13.0 + y, -8.0 + z], -1)
    faces = grid_faces(len(profile), around, closed=True)
    faces = faces[:, ::-1]
    return Part("left_ear", placed, faces, ["skin"] * len(placed), np.concatenate(albedo))


def brow() -> Part:
    """Builds the left eyebrow: a thin ribbon over the brow ridge."""
    columns, rows = 22, 5
    u = np.linspace(0.0, 1.0, columns)
    x = 9.5 + 41.0 * u
    middle = 50.2 + 6.6 * np.sin(np.pi * 0.62 * u**0.92) - 3.4 * u**3
    half = 3.0 * (1.0 - u) ** 0.45 * (0.72 + 0.28 * smoothstep(0.0, 0.12, u)) + 0.25
    v = np.linspace(-1.0, 1.0, rows)
    xy = np.stack(
        [np.tile(x, (rows, 1)) - 1.0 * v[:, None] * (1 - u), middle + half * v[:, None]], -1
    ).reshape(-1, 2)
    points = sculpt(skull.surface_in_front(xy))
    lift = np.repeat(np.array([-0.25, 0.9, 1.2, 0.9, -0.25]), columns)
    points += lift[:, None] * normalise(points - np.array([0.0, 40.0, 0.0]))
    albedo = np.tile(_HAIR_COLOUR * 1.15, (len(points), 1))
    return Part("left_brow", points, grid_faces(rows, columns), ["hair"] * len(points), albedo)


def _hairline(front: np.ndarray) -> np.ndarray:
    """Returns the elevation of the hairline from `skull.CENTRE`, radians.

    Args:
        front: cosine of the angle between the horizontal direction and the front.
    """
    degrees = np.degrees(np.arccos(np.clip(front, -1.0, 1.0)))
    # High above the forehead, lower in front of the ear, lowest at the nape.
    knots = (0, 18, 32, 44, 56, 68, 76, 84, 92, 102, 116, 135, 160, 180)
    heights = (46, 46.5, 45.5, 40, 32, 20, 6, 2, 10, 14, 4, -14, -24, -26)
    return np.radians(np.interp(degrees, knots, heights))


def under_hair(points: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Returns a `[v]` mask of skin vertices that are well inside the hairline."""
    direction = skull.direction_to(points)
    level = np.hypot(direction[:, 0], direction[:, 2])
    front = direction[:, 2] / np.maximum(level, 1e-9)
    return skin & (np.arctan2(direction[:, 1], level) > _hairline(front) + np.radians(9.0))


def hair() -> Part:
    """Builds short hair: a shell over the skull that ends at the hairline."""
    around, rows = 88, 14
    turn = 2.0 * np.pi * np.arange(around) / around  # 0 at the front, increasing towards the left
    front, side = np.cos(turn), np.abs(np.sin(turn))
    line = _hairline(front)
    thickness = (0.0, 1.2, 3.0, 4.6, 5.8, 6.6, 7.2, 7.6, 8.0, 8.2, 8.4, 8.6, 8.7, 8.7)
    share = np.linspace(0.0, 1.0, rows) ** 1.35
    points = []
    for row in range(rows):
        elevation = line + share[row] * (np.pi / 2 - 0.02 - line)
        direction = np.stack(
            [np.cos(elevation) * np.sin(turn), np.sin(elevation), np.cos(elevation) * front], -1
        )
        direction[:, 0] = np.where(side < 1e-9, 0.0, direction[:, 0])
        points.append(skull.surface_along(direction) + (thickness[row] - 0.3) * direction)
    fade = np.repeat(smoothstep(-0.05, 0.16, share), around)[:, None]
    albedo = (1 - fade) * (0.55 * SKIN_TONE + 0.45 * _HAIR_COLOUR) + fade * _HAIR_COLOUR
    return Part(
        "hair",
        np.concatenate(points),
        grid_faces(rows, around, closed=True)[:, ::-1],
        ["hair"] * (rows * around),
        albedo,
    )


# Rings of the mouth interior, starting at the seam: (vertical distance from the seam, depth behind it, width factor).
_CAVITY_RINGS = (
    (1.6, 3.4, 1.0),
    (4.8, 6.8, 0.98),
    (10.0, 8.0, 1.0),
    (15.5, 11.0, 1.08),
    (17.0, 26.0, 1.10),
    (14.0, 48.0, 0.95),
    (8.0, 62.0, 0.6),
    (0.5, 66.0, 0.05),
)


def mouth_inside(seam: np.ndarray) -> Part:
    """Builds the inner lips and the mouth cavity as rings from the seam inwards, with the spokes of the seam.

    Args:
        seam: `[spokes, 3]` vertices of the seam, mm.

    Returns:
        The part. Its faces number the seam's vertices first, followed by the part's own vertices.
    """
    t = 2.0 * np.pi * np.arange(layout.NUM_MOUTH_SPOKES) / layout.NUM_MOUTH_SPOKES
    arch = np.abs(np.sin(t)) ** 0.5 * np.sign(np.sin(t))
    points, albedo = [], []
    for ring, (drop, depth, factor) in enumerate(_CAVITY_RINGS):
        x = seam[:, 0] * factor
        y = seam[:, 1] + drop * arch
        # Deep rings are planar; near the lips, the depth follows the curved seam.
        plane = smoothstep(8.0, 40.0, np.array(depth))
        z = (1.0 - plane) * (seam[:, 2] - depth) + plane * (seam[:, 2].max() - depth)
        points.append(np.stack([x, y, z], -1))
        tone = ((0.66, 0.33, 0.31), (0.60, 0.27, 0.26))[ring] if ring < 2 else (0.42, 0.16, 0.15)
        albedo.append(np.tile(tone, (len(t), 1)))
    faces = grid_faces(len(_CAVITY_RINGS) + 1, len(t), closed=True)[:, ::-1]
    material = ["lips"] * len(t) + ["inner_mouth"] * (len(t) * (len(_CAVITY_RINGS) - 1))
    return Part("mouth_inside", np.concatenate(points), faces, material, np.concatenate(albedo))


def lid_inside(edge: np.ndarray, kind: str) -> Part:
    """Builds the thickness of the lids: one ring on the eyeball behind the lid edge, and one ring further back.

    Args:
        edge: `[spokes, 3]` lid edge of one eye, mm.
        kind: name of the part.

    Returns:
        The part. Its faces number the vertices of the edge first, followed by the part's own vertices.
    """
    centre = EYEBALL_CENTRE * [np.sign(edge[:, 0].mean()), 1.0, 1.0]
    ray = normalise(edge - centre)
    back = centre + ray * np.minimum(np.linalg.norm(edge - centre, axis=-1), EYEBALL_RADIUS + 0.15)[:, None]
    outward = (edge - centre) * [1.0, 1.0, 0.0]
    deep = back + 0.16 * outward - [0.0, 0.0, 4.0]
    albedo = np.concatenate(
        [np.tile((0.66, 0.42, 0.38), (len(edge), 1)), np.tile((0.55, 0.33, 0.30), (len(edge), 1))]
    )
    faces = grid_faces(3, len(edge), closed=True)
    if centre[0] > 0:
        faces = faces[:, ::-1]
    return Part(kind, np.concatenate([back, deep]), faces, ["skin"] * (2 * len(edge)), albedo)
