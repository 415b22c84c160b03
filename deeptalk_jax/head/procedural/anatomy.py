"""All parts of the neutral embedded head in one vertex list, with per-vertex attributes that rigging needs."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from deeptalk_jax.head.procedural import parts
from deeptalk_jax.head.procedural.colours import skin_albedo
from deeptalk_jax.head.procedural.layout import SkinLayout, seam_height
from deeptalk_jax.head.procedural.numerics import smoothstep
from deeptalk_jax.head.procedural.skin import build_skin

# Share of the edge's displacement that each ring behind the lips and lids follows, front to back.
_CAVITY_FOLLOW = (1.0, 0.92, 0.45, 0.12, 0.0, 0.0, 0.0, 0.0)
_LID_FOLLOW = (1.0, 0.75)


@dataclass(frozen=True)
class Anatomy:
    """The neutral head. Lengths are in millimetres.

    Attributes:
        points: `[v, 3]` vertices, exactly symmetric under `mirror`.
        faces: `[f, 3]` int32 vertex indices; scalp that is hidden under the hair has no faces.
        kind: `[v]` name of the part that each vertex belongs to; "skin" is the outer skin.
        material: `[v]` material names, a subset of `head.model.MATERIALS`.
        albedo: `[v, 3]` sRGB colour, 0 to 1.
        upper: `[v]` 1 above the mouth line, 0 below it.
        mirror: `[v]` index of the mirrored vertex.
        leader: `[v]` index of the skin vertex that this vertex follows; most vertices are their own leader.
        follow: `[v]` share of the leader's displacement that this vertex follows.
        layout: rings of the skin; the skin's vertices come first in `points`.
        vermilion: `[v]` true on the red of the lips, including the inner edge.
    """

    points: np.ndarray
    faces: np.ndarray
    kind: np.ndarray
    material: np.ndarray
    albedo: np.ndarray
    upper: np.ndarray
    mirror: np.ndarray
    leader: np.ndarray
    follow: np.ndarray
    layout: SkinLayout
    vermilion: np.ndarray

    def part(self, *kinds: str) -> np.ndarray:
        """Returns a `[v]` mask that is true for the vertices of the named parts."""
        return np.isin(self.kind, kinds)

    @cached_property
    def soft(self) -> np.ndarray:
        """`[v]` mask of deformable tissue: skin, ears, brows and hair."""
        return self.part("skin", "left_ear", "right_ear", "left_brow", "right_brow", "hair")

    @cached_property
    def front(self) -> np.ndarray:
        """`[v]` weight that is 1 on the front of the face and falls to 0 at the ears; 0 for rigid parts."""
        return smoothstep(-5.0, 45.0, self.points[:, 2]) * self.soft

    @cached_property
    def above_seam(self) -> np.ndarray:
        """`[v]` height above the mouth line, mm."""
        return self.points[:, 1] - seam_height(np.minimum(np.abs(self.points[:, 0]), 25.0))

    def mirrored(self, displacement: np.ndarray) -> np.ndarray:
        """Returns the displacement `[v, 3]` of the mirror-image action."""
        return displacement[self.mirror] * [-1.0, 1.0, 1.0]

    def with_followers(self, displacement: np.ndarray) -> np.ndarray:
        """Adds to the rings behind the lips and lids their share of the edge's displacement; `[v, 3]` in and out."""
        led = self.leader != np.arange(len(self.leader))
        carried = displacement.copy()
        carried[led] += self.follow[led, None] * displacement[self.leader[led]]
        return carried


def _mirror_index(points: np.ndarray, kind: np.ndarray, upper: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Returns the index of the mirrored vertex of each vertex, `[v]`.

    The nearest vertex of the mirrored head is the match. Lips that touch are told apart by `upper`, parts by `kind`,
    and rings behind an edge by `depth`.
    """
    swapped = np.array(
        [name.replace("left", "*").replace("right", "left").replace("*", "right") for name in kind]
    )
    names = {name: 1000.0 * i for i, name in enumerate(np.unique(kind))}
    tag = np.array([names[name] for name in kind])
    mirrored_tag = np.array([names[name] for name in swapped])
    extra = np.stack([40.0 * upper, 5.0 * depth], axis=1)
    here = np.concatenate([points, tag[:, None], extra], axis=1)
    there = np.concatenate([points * [-1.0, 1.0, 1.0], mirrored_tag[:, None], extra], axis=1)
    distance, index = cKDTree(here).query(there)
    if distance.max() > 0.05 or not np.array_equal(index[index], np.arange(len(index))):
        raise AssertionError(f"the head is not symmetric: vertices differ by up to {distance.max():.3f} mm")
    return index


def build_anatomy() -> Anatomy:
    """Builds the neutral head. The result is deterministic."""
    skin = build_skin()
    plan = skin.layout
    points, kinds, materials = [skin.points], ["skin"] * len(skin.points), []
    tints, lip_share = skin_albedo(skin)
    materials += ["lips" if share > 0.5 else "skin" for share in lip_share]
    albedo, faces, upper = [tints], [plan.faces], [skin.upper]
    leader, follow, depth = (
        [np.arange(len(skin.points))],
        [np.ones(len(skin.points))],
        [np.zeros(len(skin.points))],
    )
    eye, ear, brow = parts.eyeball(), parts.ear(), parts.brow()
    seam, edges = plan.mouth_rings[0], plan.eye_rings[:, 0]
    pieces = [
        (parts.mouth_inside(skin.points[seam]), seam, _CAVITY_FOLLOW),
        (parts.lid_inside(skin.points[edges[0]], "left_lids"), edges[0], _LID_FOLLOW),
        (parts.lid_inside(skin.points[edges[1]], "right_lids"), edges[1], _LID_FOLLOW),
        *((piece, None, ()) for piece in (eye, parts.mirrored(eye, "right_eye"), parts.teeth(upper=True))),
        *((piece, None, ()) for piece in (parts.teeth(upper=False), parts.tongue(), ear)),
        *((piece, None, ()) for piece in (parts.mirrored(ear, "right_ear"), brow)),
        *((piece, None, ()) for piece in (parts.mirrored(brow, "right_brow"), parts.hair())),
    ]
    offset = len(skin.points)
    for piece, edge, shares in pieces:
        count = len(piece.points)
        own = offset + np.arange(count)
        number = own if edge is None else np.concatenate([edge, own])
        points.append(piece.points)
        faces.append(number[piece.faces])
        kinds += [piece.kind] * count
        materials += piece.material
        albedo.append(piece.albedo)
        leader.append(own if edge is None else np.tile(edge, len(shares)))
        follow.append(np.ones(count) if edge is None else np.repeat(shares, len(edge)))
        depth.append(np.zeros(count) if edge is None else np.repeat(1.0 + np.arange(len(shares)), len(edge)))
        upper.append(np.full(count, 0.5) if edge is None else np.tile(skin.upper[edge], len(shares)))
        offset += count
    all_points, all_upper, kind = np.concatenate(points), np.concatenate(upper), np.array(kinds)
    mirror = _mirror_index(all_points, kind, all_upper, np.concatenate(depth))
    all_points = 0.5 * (all_points + all_points[mirror] * [-1.0, 1.0, 1.0])
    material = np.array(materials)
    visible = ~parts.under_hair(all_points, kind == "skin")[np.concatenate(faces)].all(axis=1)
    return Anatomy(
        points=all_points,
        faces=np.concatenate(faces)[visible].astype(np.int32),
        kind=kind,
        material=material,
        albedo=np.concatenate(albedo),
        upper=0.5 * (all_upper + all_upper[mirror]),
        mirror=mirror,
        leader=np.concatenate(leader),
        follow=np.concatenate(follow),
        layout=plan,
        vermilion=material == "lips",
    )
