"""Errors of facial motion, in millimetres of the head's surface, and agreement of the jaw.

Every function takes one clip, so that padding cannot enter; averages over clips are taken by `Mean`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.types import EXPRESSION_DIM, Array

_MM_PER_M = 1000.0


@jax.jit
def vertex_distances_mm(
    head: HeadModel, motion: Float[Array, "t 53"], target: Float[Array, "t 53"]
) -> tuple[Float[Array, " t"], Float[Array, " t"]]:
    """Per frame: mean distance over all vertices, and largest distance over the lip vertices.

    The second, averaged over frames, is the lip vertex error (LVE; Richard et al., ICCV 2021).
    """
    offset = motion_vertices(head, motion) - motion_vertices(head, target)
    distance = _MM_PER_M * jnp.linalg.norm(offset, axis=-1)  # [t, v]
    return jnp.mean(distance, axis=-1), jnp.max(distance[:, head.masks["lips"]], axis=-1)


class MotionErrors:
    """Mean vertex error and lip vertex error over frames of many clips."""

    def __init__(self, head: HeadModel):
        self._head = head
        self._sums = np.zeros(2)
        self._num_frames = 0

    def add(self, motion: np.ndarray, target: np.ndarray) -> None:
        """Counts one clip, `[t, 53]` each.

        Raises:
            ValueError: the clips differ in shape.
        """
        if motion.shape != target.shape:
            raise ValueError(f"motion {motion.shape} and target {target.shape} differ in shape")
        num_frames = len(motion)
        # Padding to a few lengths keeps the number of compilations small.
        padding = ((0, -num_frames % 32), (0, 0))
        errors = vertex_distances_mm(self._head, np.pad(motion, padding), np.pad(target, padding))
        self._sums += [np.asarray(error, np.float64)[:num_frames].sum() for error in errors]
        self._num_frames += num_frames

    @property
    def vertex_error_mm(self) -> float:
        """Mean distance over vertices and frames, mm."""
        return float(self._sums[0] / self._num_frames)

    @property
    def lip_error_mm(self) -> float:
        """Lip vertex error, mm: largest lip distance of a frame, averaged over frames."""
        return float(self._sums[1] / self._num_frames)


def jaw_opening(motion: np.ndarray) -> np.ndarray:
    """`[t]` rotation of the jaw about x, radians; positive is open."""
    return motion[..., EXPRESSION_DIM]


class Correlation:
    """Pearson correlation of two signals over all frames that were added."""

    def __init__(self):
        self._predicted, self._target = [], []

    def add(self, predicted: np.ndarray, target: np.ndarray) -> None:
        """Counts one clip, `[t]` each."""
        self._predicted.append(np.asarray(predicted, np.float64))
        self._target.append(np.asarray(target, np.float64))

    @property
    def value(self) -> float:
        """Correlation coefficient; 0 where either signal stands still."""
        predicted, target = np.concatenate(self._predicted), np.concatenate(self._target)
        if predicted.std() == 0 or target.std() == 0:
            return 0.0
        return float(np.corrcoef(predicted, target)[0, 1])
