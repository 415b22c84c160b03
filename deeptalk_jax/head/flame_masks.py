"""Named vertex regions of a FLAME head: from its mask file if there is one, else by geometry.

`FLAME_masks.pkl` (from the FLAME site) is looked for beside the model. Without it the regions are boxes in
units of the distance between the eye joints, placed by the proportions of an average face: good enough to
weight or to plot a region, and not the hand-drawn FLAME masks, which a measurement for publication needs.
"""

from pathlib import Path

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.model import MATERIALS, HeadSurface
from deeptalk_jax.head.unpickle import NUMPY_GLOBALS, as_array, restricted_load

MASK_FILE_NAME = "FLAME_masks.pkl"
_NAME_IN_FILE = {"lips": "lips", "eyes": "eye_region", "forehead": "forehead", "face": "face"}
_SKIN_COLOUR = (0.80, 0.62, 0.53)


def _masks_from_file(path: Path, num_vertices: int) -> dict[str, np.ndarray]:
    expected = "the FLAME vertex masks (a dictionary of index arrays)"
    with path.open("rb") as file:
        contents = restricted_load(file, source=str(path), expected=expected, allowed=NUMPY_GLOBALS)
    masks = {}
    for name, key in _NAME_IN_FILE.items():
        indices = as_array(contents.get(key)) if isinstance(contents, dict) else None
        if indices is None:
            raise UserError(f"{path}: no entry {key}; expected {expected}")
        if indices.size and (indices.min() < 0 or indices.max() >= num_vertices):
            raise UserError(f"{path}: {key} names vertices outside 0..{num_vertices - 1}")
        masks[name] = np.unique(indices.astype(np.int32))
    return masks


def geometric_masks(template: np.ndarray, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Regions as boxes placed by the two eye joints.

    Args:
        template: `[v, 3]` metres.
        joints: `[5, 3]` rest joints; 3 and 4 are the eyes.

    Returns:
        lips, eyes, forehead and face: sorted vertex indices.
    """
    left, right = joints[3], joints[4]
    centre = 0.5 * (left + right)
    unit = float(np.linalg.norm(left - right))
    x, y, z = ((template - centre) / unit).T  # in distances between the eyes
    front = z > -0.1
    lips = front & (np.abs(x) < 0.45) & (y > -1.45) & (y < -0.95)
    eyes = front & (np.abs(np.abs(x) - 0.5) < 0.4) & (np.abs(y) < 0.3)
    forehead = front & (np.abs(x) < 0.95) & (y > 0.3) & (y < 1.3)
    face = front & (np.abs(x) < 1.05) & (y > -1.95) & (y < 1.3)
    regions = {"lips": lips, "eyes": eyes, "forehead": forehead, "face": face}
    return {name: np.flatnonzero(inside).astype(np.int32) for name, inside in regions.items()}


def flame_surface(
    model_path: Path, template: np.ndarray, faces: np.ndarray, joints: np.ndarray
) -> HeadSurface:
    """Surface of a FLAME head: plain skin, with masks.

    Args:
        model_path: the model file; `FLAME_masks.pkl` is looked for beside it.
        template: `[v, 3]` metres.
        faces: `[f, 3]` int32.
        joints: `[5, 3]` rest joints, metres.

    Returns:
        The surface; `mouth_interior` is empty, FLAME's mouth is open at the back.

    Raises:
        UserError: if there is a mask file and it cannot be used.
    """
    mask_path = model_path.with_name(MASK_FILE_NAME)
    num_vertices = template.shape[0]
    masks = (
        _masks_from_file(mask_path, num_vertices)
        if mask_path.is_file()
        else geometric_masks(template, joints)
    )
    masks["mouth_interior"] = np.zeros(0, np.int32)
    return HeadSurface(
        faces=faces,
        materials=np.full(num_vertices, MATERIALS.index("skin"), np.uint8),
        albedo=np.tile(np.asarray(_SKIN_COLOUR, np.float32), (num_vertices, 1)),
        masks=masks,
    )
