"""The 68 facial landmarks of FLAME (Li et al., 2017): 17 on the contour of the face, 51 inside it.

Inner landmarks are fixed points of the surface. The contour slides over it with the yaw of the head, so that it stays
where a camera in front sees the outline; the file holds one contour for every degree. Both files come with FLAME and
are licensed with it: `flame_static_embedding.pkl` and `flame_dynamic_embedding.npy`.
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
_EXPECTED = "a landmark file of FLAME with lmk_face_idx and lmk_b_coords"


@flax.struct.dataclass
class FlameLandmarks:
    """Points of a surface, each inside one triangle.

    Attributes:
        inner: `[51, 3]` vertices of each triangle.
        inner_weights: `[51, 3]` barycentric, rows sum to 1.
        contour: `[79, 17, 3]` the same for the contour at yaws of 0 to 39 degrees to the speaker's
            right, then 1 to 39 to the left.
        contour_weights: `[79, 17, 3]`.
    """

    inner: Int[Array, "51 3"]
    inner_weights: Float[Array, "51 3"]
    contour: Int[Array, "79 17 3"]
    contour_weights: Float[Array, "79 17 3"]


def load_flame_landmarks(
    static: str | os.PathLike, dynamic: str | os.PathLike, faces: np.ndarray
) -> FlameLandmarks:
    """Reads both landmark files for a head with these faces, `[f, 3]`; runs no code from them.

    Raises:
        UserError: a file is missing, is of another kind or shape, or names faces that the head has not.
    """
    inner = _read(Path(static), (NUM_INNER,), faces)
    contour = _read(Path(dynamic), (_NUM_YAWS, NUM_CONTOUR), faces)
    return FlameLandmarks(*inner, *contour)


def _read(path: Path, shape: tuple[int, ...], faces: np.ndarray) -> tuple[Array, Array]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected {_EXPECTED}")
    with path.open("rb") as file:
        if path.suffix == ".npy":  # an object array: a pickle behind a header
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
        raise UserError(f"{path}: names faces {index.min()} to {index.max()}, the head has {len(faces)}")
    return jnp.asarray(faces[index.astype(np.int64)]), jnp.asarray(weights.astype(np.float32))


def _check(path: Path, array: Any, shape: tuple[int, ...]) -> None:
    if array is None or array.shape != shape:
        found = "nothing" if array is None else f"shape {array.shape}"
        raise UserError(f"{path}: expected an entry of shape {shape}, found {found}; expected {_EXPECTED}")


def flame_landmarks(
    landmarks: FlameLandmarks,
    vertices: Float[Array, "*b v 3"],
    *,
    global_rotation: Float[Array, "*b 3"],
    neck_pose: Float[Array, "*b 3"],
) -> Float[Array, "*b 68 3"]:
    """Landmarks of posed vertices: the contour from the speaker's right ear to the left, then the inner ones.

    Args:
        landmarks: from `load_flame_landmarks`.
        vertices: `[..., v, 3]` metres.
        global_rotation: `[..., 3]` axis-angle of the root, radians.
        neck_pose: `[..., 3]` axis-angle of the neck, radians.
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
    """Row of the contour table: the yaw in whole degrees, at most 39 to either side."""
    cosine = jnp.hypot(rotation[..., 0, 0], rotation[..., 1, 0])
    yaw = jnp.rad2deg(jnp.arctan2(rotation[..., 2, 0], cosine))  # positive to the speaker's right
    degrees = jnp.round(jnp.clip(yaw, -_MAX_YAW_DEG, _MAX_YAW_DEG)).astype(jnp.int32)
    return jnp.where(degrees < 0, _MAX_YAW_DEG - degrees, degrees)
