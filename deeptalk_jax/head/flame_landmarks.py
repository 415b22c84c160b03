"""The 68 facial landmarks of FLAME (Li et al., SIGGRAPH Asia 2017): 17 on the face contour and 51 inside it.

The inner landmarks are fixed points of the surface. The contour landmarks slide over the surface as the head yaws, so
that they stay on the outline that a camera in front sees; their file stores one contour per degree of yaw. Both files
are distributed with FLAME under its licence: `flame_static_embedding.pkl` and `flame_dynamic_embedding.npy`.
"""

import os
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.lbs import rotation_matrix
from deeptalk_jax.head.unpickle import OBJECT_ARRAY_GLOBALS, as_array, restricted_load
from deeptalk_jax.types import Array

NUM_CONTOUR, NUM_INNER = 17, 51
_MAX_YAW_DEG = 39
_NUM_YAWS = 2 * _MAX_YAW_DEG + 1  # 0 to 39 degrees to the speaker's right, then 1 to 39 to the left
_EXPECTED = "a FLAME landmark file with the entries lmk_face_idx and lmk_b_coords"


@flax.struct.dataclass
class FlameLandmarks:
    """Landmarks as points inside triangles of the surface.

    Attributes:
        inner: `[51, 3]` indices of the three vertices around each inner landmark.
        inner_weights: `[51, 3]` barycentric weights of these vertices; each row sums to 1.
        contour: `[79, 17, 3]` vertex indices of the contour landmarks, one row per yaw: 0 to 39 degrees to the
            speaker's right, then 1 to 39 degrees to the left.
        contour_weights: `[79, 17, 3]` barycentric weights of the contour landmarks.
    """

    inner: Int[Array, "51 3"]
    inner_weights: Float[Array, "51 3"]
    contour: Int[Array, "79 17 3"]
    contour_weights: Float[Array, "79 17 3"]


def load_flame_landmarks(
    static: str | os.PathLike, dynamic: str | os.PathLike, faces: np.ndarray
) -> FlameLandmarks:
    """Reads the two landmark files of FLAME without running code from them.

    Args:
        static: path of `flame_static_embedding.pkl`, the inner landmarks.
        dynamic: path of `flame_dynamic_embedding.npy`, the contour landmarks.
        faces: `[f, 3]` faces of the head that the landmarks belong to.

    Returns:
        The landmarks as vertex indices and weights.

    Raises:
        UserError: A file is missing, has another format or shape, or refers to faces that the head does not have.
    """
    inner = _read(Path(static), (NUM_INNER,), faces)
    contour = _read(Path(dynamic), (_NUM_YAWS, NUM_CONTOUR), faces)
    return FlameLandmarks(*inner, *contour)


def _read(path: Path, shape: tuple[int, ...], faces: np.ndarray) -> tuple[Array, Array]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected {_EXPECTED}")
    with path.open("rb") as file:
        if path.suffix == ".npy":  # An object array is a pickle that follows the npy header.
            try:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
            except ValueError as error:
                raise UserError(f"{path}: not a readable npy ({error}); expected {_EXPECTED}") from None
        contents = restricted_load(file, source=str(path), expected=_EXPECTED, allowed=OBJECT_ARRAY_GLOBALS)
    if isinstance(contents, np.ndarray) and contents.dtype == object and contents.size == 1:
        contents = contents.item()
    fields = contents if isinstance(contents, dict) else {}
    index, weights = (as_array(fields.get(key)) for key in ("lmk_face_idx", "lmk_b_coords"))
    _check(path, index, shape)
    _check(path, weights, (*shape, 3))
    if index.min() < 0 or index.max() >= len(faces):
        raise UserError(
            f"{path}: refers to faces {index.min()} to {index.max()}, but the head has {len(faces)} faces; "
            "use the landmark file of the same head"
        )
    return jnp.asarray(faces[index.astype(np.int64)]), jnp.asarray(weights.astype(np.float32))


def _check(path: Path, array: Any, shape: tuple[int, ...]) -> None:
    if array is None or array.shape != shape:
        found = "no such entry" if array is None else f"shape {array.shape}"
        raise UserError(f"{path}: expected an entry of shape {shape}, found {found}; expected {_EXPECTED}")


def flame_landmarks(
    landmarks: FlameLandmarks,
    vertices: Float[Array, "*b v 3"],
    *,
    global_rotation: Float[Array, "*b 3"],
    neck_pose: Float[Array, "*b 3"],
) -> Float[Array, "*b 68 3"]:
    """Computes the landmarks of posed vertices.

    Args:
        landmarks: result of `load_flame_landmarks`.
        vertices: `[..., v, 3]` posed vertices, metres.
        global_rotation: `[..., 3]` axis-angle of the root joint, radians.
        neck_pose: `[..., 3]` axis-angle of the neck joint, radians.

    Returns:
        `[..., 68, 3]` metres: the contour from the speaker's right ear to the left ear, then the inner landmarks.
    """
    rotation = jnp.matmul(rotation_matrix(global_rotation), rotation_matrix(neck_pose))
    row = _yaw_row(rotation)
    leading = vertices.shape[:-2]
    inner = jnp.broadcast_to(landmarks.inner, (*leading, NUM_INNER, 3))
    inner_weights = jnp.broadcast_to(landmarks.inner_weights, (*leading, NUM_INNER, 3))
    triangles = jnp.concatenate([landmarks.contour[row], inner], axis=-2)
    weights = jnp.concatenate([landmarks.contour_weights[row], inner_weights], axis=-2)
    corners = jnp.take_along_axis(vertices[..., None, :, :], triangles[..., None], axis=-2)
    return jnp.einsum("...lkc,...lk->...lc", corners, weights, precision=jax.lax.Precision.HIGHEST)


def _yaw_row(rotation: Float[Array, "*b 3 3"]) -> Int[Array, "*b"]:
    """Returns the row of the contour table for the yaw, rounded to whole degrees and limited to 39 to either side."""
    cosine = jnp.hypot(rotation[..., 0, 0], rotation[..., 1, 0])
    yaw = jnp.rad2deg(jnp.arctan2(rotation[..., 2, 0], cosine))  # positive to the speaker's right
    degrees = jnp.round(jnp.clip(yaw, -_MAX_YAW_DEG, _MAX_YAW_DEG)).astype(jnp.int32)
    return jnp.where(degrees < 0, _MAX_YAW_DEG - degrees, degrees)
