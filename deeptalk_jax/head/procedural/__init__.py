"""The embedded head, built from formulas.

It needs no external file, so the demo and the tests run without FLAME. The result is deterministic.
"""

from functools import cache

import jax.numpy as jnp
import numpy as np

from deeptalk_jax.head.basis import EMBEDDED, PROCEDURAL
from deeptalk_jax.head.model import MATERIALS, NUM_POSE_FEATURES, HeadModel, HeadSurface
from deeptalk_jax.head.procedural.anatomy import Anatomy, build_anatomy
from deeptalk_jax.head.procedural.expressions import expression_displacements
from deeptalk_jax.head.procedural.fields import mouth, outward, pair, vector
from deeptalk_jax.head.procedural.identity import shape_displacements
from deeptalk_jax.head.procedural.skinning import joint_regressor, skinning_weights

_METRES = 1e-3
_JAW_SINE = 9 + 7  # index of entry (2, 1) of R - I of the jaw, which is the sine of a rotation about x


def _pose_directions(anatomy: Anatomy) -> np.ndarray:
    """Returns the pose correctives, `[36, v, 3]` mm.

    As the jaw opens, they pull the mouth corners inwards, hollow the cheeks and stretch the upper lip.
    """
    corners = outward(anatomy, pair(anatomy, 27.0, -42.0, 11.0, 11.0), x=-11.0, z=-2.0)
    cheeks = outward(anatomy, pair(anatomy, 46.0, -30.0, 11.0, 18.0), x=-9.0, z=-7.0)
    upper_lip = vector(mouth(anatomy, 30.0, 20.0) * anatomy.upper, y=-3.0, z=-2.0)
    directions = np.zeros((NUM_POSE_FEATURES, *anatomy.points.shape))
    field = anatomy.with_followers(corners + cheeks + upper_lip)
    directions[_JAW_SINE] = 0.5 * (field + anatomy.mirrored(field))
    return directions


def _masks(anatomy: Anatomy) -> dict[str, np.ndarray]:
    points = anatomy.points
    skin = anatomy.part("skin")
    front = skin & (points[:, 2] > 25.0) & (points[:, 1] > -88.0)
    eye_distance = np.hypot((np.abs(points[:, 0]) - 31.0) / 22.0, (points[:, 1] - 30.0) / 15.5)
    brows = anatomy.part("left_brow", "right_brow")
    eye_parts = anatomy.part("left_eye", "right_eye", "left_lids", "right_lids")
    regions = {
        "lips": anatomy.vermilion,
        "eyes": (front & (eye_distance <= 1.0)) | eye_parts,
        "forehead": (skin & (points[:, 2] > 30.0) & (points[:, 1] > 47.0) & (points[:, 1] < 98.0)) | brows,
        "face": (front & (points[:, 1] < 98.0)) | brows | anatomy.vermilion,
        "mouth_interior": anatomy.part("upper_teeth", "lower_teeth", "tongue")
        | (anatomy.part("mouth_inside") & ~anatomy.vermilion),
    }
    return {name: np.flatnonzero(inside).astype(np.int32) for name, inside in regions.items()}


def _landmarks(anatomy: Anatomy) -> dict[str, int]:
    rings, eyes = anatomy.layout.mouth_rings, anatomy.layout.eye_rings
    quarter, eye_quarter = rings.shape[1] // 4, eyes.shape[2] // 4
    skin = np.flatnonzero(anatomy.part("skin"))
    middle = skin[np.abs(anatomy.points[skin, 0]) < 1e-6]
    nose = middle[np.abs(anatomy.points[middle, 1] + 4.0) < 20.0]
    chin = middle[np.abs(anatomy.points[middle, 1] + 72.0) < 10.0]
    points = {
        "mouth_left": rings[0, 0],
        "mouth_right": rings[0, 2 * quarter],
        "upper_lip_seam": rings[0, quarter],
        "lower_lip_seam": rings[0, 3 * quarter],
        "upper_lip_border": rings[4, quarter],
        "lower_lip_border": rings[4, 3 * quarter],
        "nose_tip": nose[np.argmax(anatomy.points[nose, 2])],
        "chin": chin[np.argmax(anatomy.points[chin, 2])],
    }
    for side, name in enumerate(("left", "right")):
        points[f"{name}_eye_outer"] = eyes[side, 0, 0]
        points[f"{name}_eye_inner"] = eyes[side, 0, 2 * eye_quarter]
        points[f"{name}_upper_lid"] = eyes[side, 0, eye_quarter]
        points[f"{name}_lower_lid"] = eyes[side, 0, 3 * eye_quarter]
    return {name: int(index) for name, index in points.items()}


@cache
def procedural_head() -> HeadModel:
    """Builds the embedded head. Later calls return the same object.

    Returns:
        A float32 head. Its 50 expression directions are the actions of `head/actions.py`, in the same order.
    """
    anatomy = build_anatomy()
    surface = HeadSurface(
        faces=anatomy.faces,
        materials=np.array([MATERIALS.index(name) for name in anatomy.material], np.uint8),
        albedo=np.clip(anatomy.albedo, 0.0, 1.0).astype(np.float32),
        masks=_masks(anatomy),
        landmarks=_landmarks(anatomy),
        mask_source="the construction of the embedded head",
    )

    def metres(millimetres: np.ndarray) -> jnp.ndarray:
        return jnp.asarray(_METRES * millimetres, jnp.float32)

    return HeadModel(
        template=metres(anatomy.points),
        expression_directions=metres(expression_displacements(anatomy)),
        shape_directions=metres(shape_displacements(anatomy)),
        pose_directions=metres(_pose_directions(anatomy)),
        joint_regressor=jnp.asarray(joint_regressor(anatomy), jnp.float32),
        skinning_weights=jnp.asarray(skinning_weights(anatomy), jnp.float32),
        surface=surface,
        name=PROCEDURAL,
        basis=EMBEDDED,
    )


__all__ = ["procedural_head"]
