"""Signals of lips, lids and brows that are measured on the vertices of a head, so that they hold for any head.

The measures of speech (`articulation.py`), of blinks (`eyelids.py`) and of smoothness (`smoothness.py`) read these
signals instead of named coefficients, because the expression directions of FLAME have no names.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.model import JOINT_NAMES, HeadModel
from deeptalk_jax.head.subset import head_subset
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM, Array

_STEP_FRAMES = 128  # lengths are padded to multiples of this number, so that there are few compilations
_MM_PER_M = 1000.0
_EYE_JOINTS = (JOINT_NAMES.index("left_eye"), JOINT_NAMES.index("right_eye"))
_COLUMN_M = 0.004  # half the width of the column of vertices at the middle of the mouth or of an eye
_OPEN_JAW_RAD = 0.3  # a jaw angle that tells the lower lip from the upper one
_LOWER_SHARE, _UPPER_SHARE = 0.6, 0.25  # of the largest motion under that angle
_NUM_LIP_POINTS = 4  # points of each lip that the gap is averaged over


_vertices = jax.jit(motion_vertices)


class FaceSignals(NamedTuple):
    """Signals of one motion, in mm.

    Attributes:
        lip_gap: `[t]` height between the lips at the middle of the mouth, less that of the face at rest.
        mouth_width: `[t]` distance of the corners of the mouth from left to right.
        lid_opening: `[t]` height between the lids at the middle of the eyes, the mean of both, divided by that of the
            face at rest (no unit); 0 is closed.
        brow_acceleration: `[t - 2]` second difference over frames of the vertices of the forehead, the mean length
            over vertices.
        lid_acceleration: `[t - 2]` the same of the vertices around the eyes.
    """

    lip_gap: np.ndarray
    mouth_width: np.ndarray
    lid_opening: np.ndarray
    brow_acceleration: np.ndarray
    lid_acceleration: np.ndarray


class _Points(NamedTuple):
    """Indices into the vertices of the head subset."""

    upper_lip: Int[np.ndarray, " n"]
    lower_lip: Int[np.ndarray, " n"]
    corners: Int[np.ndarray, " 2"]
    upper_lid: Int[np.ndarray, " 2"]
    lower_lid: Int[np.ndarray, " 2"]
    brows: Int[np.ndarray, " n"]
    lids: Int[np.ndarray, " n"]


class FacePoints:
    """Computes `FaceSignals` of motions on one head.

    Args:
        head: head with the masks `lips`, `eyes` and `forehead`.

    Raises:
        UserError: no inner points of the lips or no opening of the eyes are found.
    """

    def __init__(self, head: HeadModel):
        upper_lip, lower_lip, corners = lip_points(head)
        upper_lid, lower_lid = lid_points(head)
        brows, lids = head.masks["forehead"], _lid_skin(head)
        groups = (upper_lip, lower_lip, corners, upper_lid, lower_lid, brows, lids)
        vertices = np.unique(np.concatenate(groups))
        self._head = head_subset(head, vertices)
        self._points = _Points(*(np.searchsorted(vertices, group) for group in groups))
        rest = _signals(self._head, self._points, np.zeros((3, MOTION_DIM), np.float32))
        self._rest_gap, self._rest_opening = float(rest[0][0]), float(rest[2][0])

    def signals(self, motion: Float[np.ndarray, "t 53"]) -> FaceSignals:
        """Returns the signals of a motion of three frames or more."""
        num_frames = len(motion)
        padded = np.pad(motion, ((0, -num_frames % _STEP_FRAMES), (0, 0)), mode="edge")
        gap, width, opening, *accelerations = jax.device_get(_signals(self._head, self._points, padded))
        inner_frames = max(num_frames - 2, 0)
        return FaceSignals(
            _MM_PER_M * (gap[:num_frames] - self._rest_gap),
            _MM_PER_M * width[:num_frames],
            opening[:num_frames] / self._rest_opening,
            *(_MM_PER_M * acceleration[:inner_frames] for acceleration in accelerations),
        )


def lip_points(head: HeadModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the points that the gap between the lips and the width of the mouth are measured at.

    The lower lip are the vertices of the mask `lips` near the middle that an opening jaw takes along. The inner points
    of a lip are those next to the other lip at rest.

    Returns:
        Vertices of the upper lip, of the lower lip, and the left and the right corner of the mouth.

    Raises:
        UserError: the mask `lips` has no vertices of both lips at the middle.
    """
    lips = head.masks["lips"]
    motion = np.zeros((2, MOTION_DIM), np.float32)
    motion[1, EXPRESSION_DIM] = _OPEN_JAW_RAD
    rest, opened = np.asarray(_vertices(head, motion))[:, lips]
    moved = np.linalg.norm(opened - rest, axis=1)
    middle = np.abs(rest[:, 0] - np.median(rest[:, 0])) < _COLUMN_M
    upper = np.flatnonzero(middle & (moved < _UPPER_SHARE * moved.max()))
    lower = np.flatnonzero(middle & (moved > _LOWER_SHARE * moved.max()))
    if not len(upper) or not len(lower):
        raise UserError(
            f"head {head.name!r}: its mask 'lips' has no vertices of both lips at the middle; expected some of each "
            "within 4 mm, of which an opening jaw moves the lower ones"
        )
    upper = upper[np.argsort(rest[upper, 1])[:_NUM_LIP_POINTS]]
    lower = lower[np.argsort(-rest[lower, 1])[:_NUM_LIP_POINTS]]
    corners = np.array([np.argmax(rest[:, 0]), np.argmin(rest[:, 0])])
    return lips[upper], lips[lower], lips[corners]


def _lid_skin(head: HeadModel) -> np.ndarray:
    """Returns the vertices of the mask `eyes` that do not turn with an eyeball."""
    eyes = head.masks["eyes"]
    turning = np.asarray(head.skinning_weights)[eyes][:, _EYE_JOINTS].sum(axis=1)
    return eyes[turning < 0.5]


def lid_points(head: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Finds the points of the lids at the middle of both eyes.

    In a narrow column of skin through the middle of an eye, the opening is the widest interval of height without
    vertices.

    Returns:
        Vertices of the upper lids and of the lower lids, `[2]` each, of the left and the right eye.

    Raises:
        UserError: there are no two vertices of skin above each other at the middle of an eye.
    """
    template, skin = np.asarray(head.template), _lid_skin(head)
    joints = np.asarray(head.joint_regressor) @ template
    pairs = []
    for joint in _EYE_JOINTS:
        column = skin[np.abs(template[skin, 0] - joints[joint, 0]) < _COLUMN_M]
        if len(column) < 2:
            raise UserError(
                f"head {head.name!r}: its mask 'eyes' has no lids at the joint {JOINT_NAMES[joint]}; expected skin "
                "above and below it, within 4 mm to the sides"
            )
        column = column[np.argsort(template[column, 1])]
        below = int(np.argmax(np.diff(template[column, 1])))
        pairs.append((column[below + 1], column[below]))
    upper, lower = np.transpose(pairs)
    return upper, lower


@jax.jit
def _signals(head: HeadModel, points: _Points, motion: Float[Array, "t 53"]) -> tuple[Array, ...]:
    """Returns lip gap, width of the mouth and opening of the eyes, `[t]`, and both accelerations, in metres."""
    vertices = motion_vertices(head, motion)
    height = vertices[..., 1]
    gap = height[:, points.upper_lip].mean(axis=1) - height[:, points.lower_lip].mean(axis=1)
    left, right = points.corners
    width = vertices[:, left, 0] - vertices[:, right, 0]
    opening = (height[:, points.upper_lid] - height[:, points.lower_lid]).mean(axis=1)
    accelerations = (_acceleration(vertices[:, region]) for region in (points.brows, points.lids))
    return gap, width, opening, *accelerations


def _acceleration(vertices: Float[Array, "t v 3"]) -> Float[Array, " _"]:
    second = vertices[2:] - 2.0 * vertices[1:-1] + vertices[:-2]
    return jnp.linalg.norm(second, axis=-1).mean(axis=1)
