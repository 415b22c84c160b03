"""Layout of the skin mesh: rings of vertices around mouth, eyes and neck, and scattered vertices elsewhere.

Mouth and eyes consist of rings with equal numbers of vertices, so that the openings have clean edges and lips and lids
can roll. The vertices between the rings are scattered with a spacing that depends on the detail of the face. They are
connected by the convex hull of their directions, which is the Delaunay triangulation on the sphere. The left half is
laid out first and then mirrored. Lengths are in millimetres.
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

# Positions of the rings as shares of the way: from the seam to the lip border, from the lip border to the outer ring,
# and from the lid edge to the outer ring of an eye.
VERMILION_STEPS = (0.0, 0.2, 0.45, 0.72, 1.0)
PERIORAL_STEPS = (0.1, 0.26, 0.46, 0.7, 1.0)
LID_STEPS = (0.0, 0.07, 0.18, 0.32, 0.48, 0.68, 1.0)


@dataclass(frozen=True)
class SkinLayout:
    """Connectivity of the outer skin.

    Attributes:
        directions: `[v, 3]` unit directions from `skull.CENTRE`; they place the scattered vertices.
        front_xy: `[v, 2]` x and y of ring vertices in the front view, mm; NaN for all other vertices.
        faces: `[f, 3]` vertex indices.
        mouth_rings: `[rings, spokes]` vertex indices, from the seam outwards; spoke 0 is the left mouth corner and the
            upper lip follows.
        eye_rings: `[2, rings, spokes]` vertex indices of the left and right eye, from the lid edge outwards; spoke 0
            is the lateral corner.
        neck_ring: `[points]` vertex indices along the lower end of the neck.
    """

    directions: np.ndarray
    front_xy: np.ndarray
    faces: np.ndarray
    mouth_rings: np.ndarray
    eye_rings: np.ndarray
    neck_ring: np.ndarray


def seam_height(x: np.ndarray) -> np.ndarray:
    """Returns the y coordinate of the line where the lips meet at x, mm."""
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
    """Returns the front view of the mouth rings, `[rings, spokes, 2]` mm."""
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
    """Returns the lid edge of the left eye in the front view, `[spokes, 2]` mm; t = 0 is the lateral corner."""
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
    """Returns the desired distance between neighbouring vertices, `[v]` mm, at points `[v, 3]` of the rough surface."""
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
    """Returns candidate directions of the left half, `[c, 3]`, denser towards the face and nose, in a fixed order."""
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
    """Returns which points `[v, 2]` are inside the polygon `[n, 2]`, by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    for start, end in zip(loop, np.roll(loop, -1, axis=0), strict=True):
        crosses = (start[1] > points[:, 1]) != (end[1] > points[:, 1])
        with np.errstate(divide="ignore", invalid="ignore"):
            x = start[0] + (points[:, 1] - start[1]) * (end[0] - start[0]) / (end[1] - start[1])
        inside ^= crosses & (points[:, 0] < x)
    return inside


def _tangent(directions: np.ndarray) -> np.ndarray:
    """Projects directions to the plane z = 1, `[v, 2]`; directions that point backwards are mapped far away."""
    z = directions[:, 2]
    return np.where((z > 0.05)[:, None], directions[:, :2] / np.maximum(z, 0.05)[:, None], 99.0)


def _midline(blocked: cKDTree, loops: list[np.ndarray], neck_direction_y: float) -> np.ndarray:
    """Returns directions in the plane x = 0 around the whole head, at the desired spacing."""
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
    """Returns the directions of scattered vertices on the left half and on the midline.

    They keep the desired spacing from one another and from the rings.
    """
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
    """Returns the Delaunay triangles on the sphere, facing outwards, without the triangles that would close a loop."""
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
    """Moves free vertices half way to the mean of their neighbours; midline vertices stay at x = 0."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    sums = np.zeros_like(directions)
    np.add.at(sums, edges[:, 0], directions[edges[:, 1]])
    moved = directions.copy()
    moved[free] = normalise(directions[free] + 0.5 * (normalise(sums[free]) - directions[free]))
    moved[midline, 0] = 0.0
    return normalise(moved)


def ring_faces(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Returns the triangles between two closed rings of equal length.

    Args:
        inner: `[n]` vertex indices of the inner ring, counter-clockwise as seen from outside.
        outer: `[n]` vertex indices of the outer ring, in the same order.

    Returns:
        `[2 n, 3]` vertex indices. The diagonals are mirrored at the middle spoke.
    """
    next_inner, next_outer = np.roll(inner, -1), np.roll(outer, -1)
    quad = np.stack([inner, outer, next_outer, next_inner], axis=-1)
    quarter = (4 * np.arange(len(inner))) // len(inner)
    straight = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]], axis=1)
    crossed = np.concatenate([quad[:, [0, 1, 3]], quad[:, [1, 2, 3]]], axis=1)
    return np.where((quarter % 2 == 0)[:, None], straight, crossed).reshape(-1, 3)


def neck_turns() -> np.ndarray:
    """Returns the angles of the neck ring's vertices about the vertical axis, `[points]` radians."""
    return 2.0 * np.pi * np.arange(NUM_NECK_POINTS) / NUM_NECK_POINTS


def lay_out_skin() -> SkinLayout:
    """Builds the layout. The result is deterministic.

    Returns:
        The layout. Ring vertices come first (mouth, left eye, right eye, neck), then the scattered vertices of the
        left half, of the right half and of the midline.
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
    # Inner rings would become vertices of the hull too, so only the outermost ring of an opening takes part.
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
        # Four points on a circle can be split by either diagonal, so the triangulation may be asymmetric and
        # the relaxed points with it. Averaging both halves restores the symmetry of the points.
        left_half = normalise(directions[left_side] + directions[right_side] * [-1.0, 1.0, 1.0])
        directions[left_side], directions[right_side] = left_half, left_half * [-1.0, 1.0, 1.0]
    faces = [taking_part[_hull_faces(directions[taking_part], local_loops)]]
    for rings in (mouth_rings, eye_rings[0]):
        faces += [ring_faces(a, b) for a, b in itertools.pairwise(rings)]
    faces += [ring_faces(a, b)[:, ::-1] for a, b in zip(eye_rings[1][:-1], eye_rings[1][1:], strict=True)]
    padded = np.full((len(directions), 2), np.nan)
    padded[: len(front_xy)] = front_xy
    return SkinLayout(directions, padded, np.concatenate(faces), mouth_rings, eye_rings, neck_ring)
