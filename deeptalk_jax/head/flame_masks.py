"""Named vertex regions of a FLAME head, from the FLAME mask file or, without it, from geometry.

`FLAME_masks.pkl` (from the FLAME web site) is expected in the folder of the model file. Without it, the regions are
boxes measured in distances between the eye joints and placed by the proportions of an average face. The boxes are good
enough to weight or plot a region. Measurements for publication need the hand-drawn FLAME masks.
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
    expected = "the FLAME vertex masks, a dictionary of index arrays"
    with path.open("rb") as file:
        contents = restricted_load(file, source=str(path), expected=expected, allowed=NUMPY_GLOBALS)
    masks = {}
    for name, key in _NAME_IN_FILE.items():
        indices = as_array(contents.get(key)) if isinstance(contents, dict) else None
        if indices is None:
            raise UserError(f"{path}: no entry {key}; expected {expected}")
        if indices.size and (indices.min() < 0 or indices.max() >= num_vertices):
            raise UserError(
                f"{path}: mask {key} refers to vertices outside 0..{num_vertices - 1}; "
                "use the mask file of the same head"
            )
        masks[name] = np.unique(indices.astype(np.int32))
    return masks


def geometric_masks(template: np.ndarray, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Returns regions as boxes placed relative to the two eye joints.

    Args:
        template: `[v, 3]` neutral vertices, metres.
        joints: `[5, 3]` joints at rest, metres; joints 3 and 4 are the eyes.

    Returns:
        Sorted vertex indices of the regions lips, eyes, forehead and face.
    """
    left, right = joints[3], joints[4]
    centre = 0.5 * (left + right)
    unit = float(np.linalg.norm(left - right))
    x, y, z = ((template - centre) / unit).T  # unit: the distance between the eyes
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
    """Builds the surface of a FLAME head: skin of one colour, with masks.

    Args:
        model_path: the model file; `FLAME_masks.pkl` is read from the same folder if it exists.
        template: `[v, 3]` neutral vertices, metres.
        faces: `[f, 3]` int32 vertex indices.
        joints: `[5, 3]` joints at rest, metres.

    Returns:
        The surface. Its mask `mouth_interior` is empty, because the mouth of FLAME is open at the back.

    Raises:
        UserError: A mask file exists but cannot be used.
    """
    mask_path = model_path.with_name(MASK_FILE_NAME)
    num_vertices = template.shape[0]
    if mask_path.is_file():
        masks, source = _masks_from_file(mask_path, num_vertices), str(mask_path)
    else:
        masks, source = geometric_masks(template, joints), f"boxes around the eye joints (no {mask_path})"
    masks["mouth_interior"] = np.zeros(0, np.int32)
    return HeadSurface(
        faces=faces,
        materials=np.full(num_vertices, MATERIALS.index("skin"), np.uint8),
        albedo=np.tile(np.asarray(_SKIN_COLOUR, np.float32), (num_vertices, 1)),
        masks=masks,
        mask_source=source,
    )
