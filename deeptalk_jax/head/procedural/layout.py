"""Where the vertices of the skin go, and how they connect: rings around openings, graded points elsewhere.

Mouth and eyes are rings of equal length, so that every opening has clean edges and lips and lids can roll;
between them points are scattered with a spacing that follows the detail of the face, and connected by the
convex hull of their directions, which is the Delaunay triangulation of a sphere. Everything is laid out for
the left half and mirrored.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, cKDTree

from deeptalk_jax.head.procedural import skull
from deeptalk_jax.head.procedural.numerics import bump, normalise

NUM_MOUTH_SPOKES = 56
NUM_EYE_SPOKES = 40
NUM_NECK_POINTS = 48

MOUTH_HALF_WIDTH = 25.0
EYE_CENTRE = (31.0, 30.0)
EYE_HALF_WIDTH = 15.0
NECK_END_Y = -165.0

# Share of the way from the seam to the lip border, then from there to the outer ring.
VERMILION_STEPS = (0.0, 0.2, 0.45, 0.72, 1.0)
PERIORAL_STEPS = (0.1, 0.26, 0.46, 0.7, 1.0)
LID_STEPS = (0.0, 0.07, 0.18, 0.32, 0.48, 0.68, 1.0)


@dataclass(frozen=True)
class SkinLayout:
    """Connectivity of the outer skin.

    Attributes:
        directions: `[v, 3]` unit directions from the centre, for points of the scatter.
        front_xy: `[v, 2]` position seen from the front, for ring points; nan for the scatter.
        faces: `[f, 3]`.
        mouth_rings: `[rings, spokes]` vertex indices, seam first; spoke 0 is the left corner, then the upper lip.
        eye_rings: `[2, rings, spokes]` the same for the left and right eye, lid edge first; spoke 0 is lateral.
        neck_ring: `[points]` indices along the lower end.
    """

    directions: np.ndarray
    front_xy: np.ndarray
    faces: np.ndarray
    mouth_rings: np.ndarray
    eye_rings: np.ndarray
    neck_ring: np.ndarray


def seam_height(x: np.ndarray) -> np.ndarray:
    """Height of the line where the lips meet, mm, over x."""
    u = np.abs(x) / MOUTH_HALF_WIDTH
    return -40.3 - 1.1 * np.exp(-((u / 0.28) ** 2)) + 0.7 * np.exp(-(((u - 0.5) / 0.25) ** 2)) + 0.5 * u**3


def _lip_border(t: np.ndarray) -> np.ndarray:
    x = (MOUTH_HALF_WIDTH + 1.2) * np.cos(t)
    taper = np.maximum(1.0 - (x / (MOUTH_HALF_WIDTH + 1.2)) ** 2, 0.0)
    cupid = 1.5 * np.exp(-(((np.abs(x) - 6.0) / 3.8) ** 2)) - 0.5 * np.exp(-((x / 2.6) ** 2))
    upper = taper**0.75 * (8.3 + cupid)
    lower = taper**0.62 * 9.6
    return np.stack([x, seam_height(x) + np.where(np.sin(t) >= 0, upper, -lower)], axis=-1)


def _mouth_front_xy() -> np.ndarray:
    """`[rings, spokes, 2]`."""
    t = 2.0 * np.pi * np.arange(NUM_MOUTH_SPOKES) / NUM_MOUTH_SPOKES
    x = MOUTH_HALF_WIDTH * np.cos(t)
    seam = np.stack([x, seam_height(x)], axis=-1)
    border = _lip_border(t)
    reach = np.where(np.sin(t) >= 0, 18.5, 22.0)
    outer = np.stack([38.0 * np.cos(t), -41.0 + reach * np.sin(t)], axis=-1)
    rings = [seam + s * (border - seam) for s in VERMILION_STEPS]
    rings += [border + s * (outer - border) for s in PERIORAL_STEPS]
    return np.stack(rings)


def lid_edge(t: np.ndarray) -> np.ndarray:
    """`[spokes, 2]` edge of the left eye's lids seen from the front, mm; t = 0 at the lateral corner."""
    u = np.cos(t)
    opening = np.maximum(1.0 - u**2, 0.0)
    upper = 6.3 * opening**0.62 * (1.0 - 0.10 * u)
    lower = 4.7 * opening**0.75 * (1.0 + 0.16 * u)
    line = EYE_CENTRE[1] - 0.6 + 1.3 * u
    y = line + np.where(np.sin(t) >= 0, upper, -lower)
    return np.stack([EYE_CENTRE[0] + 0.3 + EYE_HALF_WIDTH * u, y], axis=-1)


def _eye_front_xy() -> np.ndarray:
    t = 2.0 * np.pi * np.arange(NUM_EYE_SPOKES) / NUM_EYE_SPOKES
    edge = lid_edge(t)
    reach = np.where(np.sin(t) >= 0, 14.5, 15.5)
    outer = np.stack(
        [EYE_CENTRE[0] + 0.5 + 21.5 * np.cos(t), EYE_CENTRE[1] + 0.5 + reach * np.sin(t)], axis=-1
    )
    return np.stack([edge + s * (outer - edge) for s in LID_STEPS])


def _spacing(points: np.ndarray) -> np.ndarray:
    """Wanted distance between neighbours, mm, on a rough surface of `[v, 3]` points."""
    base = (
        11.0
        - 5.2 * bump(points, (0.0, 0.0, 80.0), (70.0, 80.0, 60.0))
        - 2.0 * bump(points, (0.0, 5.0, 95.0), (55.0, 60.0, 40.0))
    )
    base -= 2.2 * bump(points, (0.0, -5.0), (17.0, 22.0)) * (points[:, 2] > 40.0)
    base -= 0.9 * bump(points, (0.0, -12.0), (14.0, 9.0)) * (points[:, 2] > 40.0)
    base -= 2.5 * (points[:, 1] < -60.0)
    return np.maximum(base, 1.7)


def _candidates() -> np.ndarray:
    """`[c, 3]` unit directions of the left half, denser towards the face and the nose, in a fixed mixed order."""
    clouds = []
    for count, cos_limit, axis in (
        (9000, -1.0, (0, 0, 1.0)),
        (7000, 0.45, (0, -0.1, 1.0)),
        (6000, 0.94, (0, -0.15, 1.0)),
    ):
        i = np.arange(count) + 0.5
        cos = 1.0 - (1.0 - cos_limit) * i / count
        sin = np.sqrt(1.0 - cos**2)
        turn = np.pi * (1.0 + 5.0**0.5) * i
        forward = normalise(np.array([axis]))[0]
        side = np.array([1.0, 0.0, 0.0])
        up = np.cross(forward, side)
        clouds.append(
            cos[:, None] * forward
            + sin[:, None] * (np.cos(turn)[:, None] * side + np.sin(turn)[:, None] * up)
        )
    cloud = np.concatenate(clouds)
    cloud = cloud[cloud[:, 0] > 0.0]
    return cloud[np.random.default_rng(7).permutation(len(cloud))]


def _rough_surface(directions: np.ndarray) -> np.ndarray:
    return skull.CENTRE + directions / np.linalg.norm(
        directions / [75.0, 118.0, 97.0], axis=-1, keepdims=True
    )


def _inside_loop(points: np.ndarray, loop: np.ndarray) -> np.ndarray:
    """Whether `[v, 2]` points lie in the polygon `[n, 2]` (even-odd rule)."""
    inside = np.zeros(len(points), bool)
    for start, end in zip(loop, np.roll(loop, -1, axis=0), strict=True):
        crosses = (start[1] > points[:, 1]) != (end[1] > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            x = start[0] + (points[:, 1] - start[1]) * (end[0] - start[0]) / (end[1] - start[1])
        inside ^= crosses & (points[:, 0] < x)
    return inside


def _tangent(directions: np.ndarray) -> np.ndarray:
    """`[v, 2]` chart of the front half-space; points behind go far away."""
    z = directions[:, 2]
    return np.where((z > 0.05)[:, None], directions[:, :2] / np.maximum(z, 0.05)[:, None], 99.0)


def _midline(blocked: cKDTree, loops: list[np.ndarray], neck_direction_y: float) -> np.ndarray:
    """Directions along x = 0, evenly graded, all around the head."""
    angles, angle = [], 0.0
    while angle < 2.0 * np.pi:
        direction = np.array([[0.0, np.sin(angle), np.cos(angle)]])
        rough = _rough_surface(direction)
        angles.append(direction[0])
        angle += float(_spacing(rough)[0]) / np.linalg.norm(rough - skull.CENTRE)
    line = np.array(angles[:-1])
    rough = _rough_surface(line)
    clear = blocked.query(rough)[0] > 0.7 * _spacing(rough)
    for loop in loops:
        clear &= ~_inside_loop(_tangent(line), loop)
    return line[clear & (normalise(line)[:, 1] > neck_direction_y)]


def _scatter(rings: np.ndarray, loops: list[np.ndarray], neck_cap: float) -> tuple[np.ndarray, np.ndarray]:
    """Free points: (left half, midline) directions, at their spacing from each other and from the rings."""
    fixed = cKDTree(_rough_surface(rings))
    midline = _midline(fixed, loops, neck_cap)
    candidates = _candidates()
    rough = _rough_surface(candidates)
    spacing = _spacing(rough)
    obstacles = cKDTree(np.concatenate([_rough_surface(rings), _rough_surface(midline)]))
    blocked = obstacles.query(rough)[0] < 0.75 * spacing
    blocked |= (rough[:, 0] < 0.5 * spacing) | (candidates[:, 1] < neck_cap)
    chart = _tangent(candidates)
    for loop in loops:
        blocked |= _inside_loop(chart, loop)
    tree = cKDTree(rough)
    taken = []
    for index in range(len(candidates)):
        if not blocked[index]:
            taken.append(index)
            blocked[tree.query_ball_point(rough[index], spacing[index])] = True
    return candidates[taken], midline


def _hull_faces(directions: np.ndarray, loops: list[np.ndarray]) -> np.ndarray:
    """Delaunay triangles on the sphere, outward, without those that close a loop."""
    faces = ConvexHull(directions).simplices.astype(np.int64)
    corners = directions[faces]
    outward = np.einsum(
        "fc,fc->f", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners[:, 0]
    )
    faces[outward < 0] = faces[outward < 0][:, ::-1]
    for loop in loops:
        member = np.zeros(len(directions), bool)
        member[loop] = True
        faces = faces[~member[faces].all(axis=1)]
    return faces


def _relax(directions: np.ndarray, faces: np.ndarray, free: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """Moves free points to the middle of their neighbours; the midline stays on x = 0."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    sums = np.zeros_like(directions)
    np.add.at(sums, edges[:, 0], directions[edges[:, 1]])
    moved = directions.copy()
    moved[free] = normalise(directions[free] + 0.5 * (normalise(sums[free]) - directions[free]))
    moved[midline, 0] = 0.0
    return normalise(moved)


def ring_faces(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Triangles between two closed rings of equal length that run counter-clockwise, seen from outside.

    Args:
        inner: `[n]` vertex indices of the ring nearer to the opening.
        outer: `[n]` vertex indices of the ring around it.

    Returns:
        `[2 n, 3]`; diagonals mirror at the middle spoke.
    """
    next_inner, next_outer = np.roll(inner, -1), np.roll(outer, -1)
    quad = np.stack([inner, outer, next_outer, next_inner], axis=-1)
    quarter = (4 * np.arange(len(inner))) // len(inner)
    straight = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]], axis=1)
    crossed = np.concatenate([quad[:, [0, 1, 3]], quad[:, [1, 2, 3]]], axis=1)
    return np.where((quarter % 2 == 0)[:, None], straight, crossed).reshape(-1, 3)


def neck_turns() -> np.ndarray:
    """`[points]` angles about the vertical axis of the points along the lower end, radians."""
    return 2.0 * np.pi * np.arange(NUM_NECK_POINTS) / NUM_NECK_POINTS


def lay_out_skin() -> SkinLayout:
    """Builds the layout; the same on every call.

    Returns:
        Rings first (mouth, left eye, right eye, neck), then scattered points, left before right before midline.
    """
    mouth, left = _mouth_front_xy(), _eye_front_xy()
    right = left * [-1.0, 1.0]
    front_xy = np.concatenate([ring.reshape(-1, 2) for ring in (mouth, left, right)])
    counts = np.cumsum([mouth[..., 0].size, left[..., 0].size, right[..., 0].size])
    mouth_rings = np.arange(counts[0]).reshape(mouth.shape[:2])
    eye_rings = np.arange(counts[0], counts[2]).reshape(2, *left.shape[:2])
    neck_ring = counts[2] + np.arange(NUM_NECK_POINTS)
    neck = skull.direction_to(skull.surface_at_height(neck_turns(), NECK_END_Y))
    ring_directions = skull.direction_to(skull.surface_in_front(front_xy))
    loops = [mouth_rings[-1], eye_rings[0, -1], eye_rings[1, -1], neck_ring]
    openings = [_tangent(ring_directions[loop]) for loop in loops[:3]]

    fixed = np.concatenate([ring_directions, neck])
    half, midline = _scatter(fixed, openings, float(neck[:, 1].max()) + 0.004)
    directions = np.concatenate([fixed, half, half * [-1.0, 1.0, 1.0], midline])
    # Rings inside an opening would be hull points too: only the outermost ring takes part.
    hidden = np.setdiff1d(np.arange(counts[2]), np.concatenate(loops[:3]))
    taking_part = np.setdiff1d(np.arange(len(directions)), hidden)
    number = np.full(len(directions), -1)
    number[taking_part] = np.arange(len(taking_part))
    free, middle = (
        np.arange(len(fixed), len(directions)),
        np.arange(len(directions) - len(midline), len(directions)),
    )
    left_side = len(fixed) + np.arange(len(half))
    right_side = left_side + len(half)
    local_loops = [number[loop] for loop in loops]
    for _ in range(5):
        local = _hull_faces(directions[taking_part], local_loops)
        directions[taking_part] = _relax(directions[taking_part], local, number[free], number[middle])
        # Four points on a circle can be split either way: the triangulation need not mirror, the points must.
        left_half = normalise(directions[left_side] + directions[right_side] * [-1.0, 1.0, 1.0])
        directions[left_side], directions[right_side] = left_half, left_half * [-1.0, 1.0, 1.0]
    faces = [taking_part[_hull_faces(directions[taking_part], local_loops)]]
    for rings in (mouth_rings, eye_rings[0]):
        faces += [ring_faces(a, b) for a, b in itertools.pairwise(rings)]
    faces += [ring_faces(a, b)[:, ::-1] for a, b in zip(eye_rings[1][:-1], eye_rings[1][1:], strict=True)]
    padded = np.full((len(directions), 2), np.nan)
    padded[: len(front_xy)] = front_xy
    return SkinLayout(directions, padded, np.concatenate(faces), mouth_rings, eye_rings, neck_ring)
