"""How lively a face moves: deviation of the upper face's dynamics, and diversity of samples."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.head.lbs import motion_coordinates
from deeptalk_jax.head.model import JOINT_NAMES, HeadModel
from deeptalk_jax.head.subset import head_subset
from deeptalk_jax.masks import length_mask
from deeptalk_jax.metrics.motion import surface_distance
from deeptalk_jax.types import Array

_MM_PER_M = 1000.0
_STEP_FRAMES = 128  # lengths are padded to multiples of this: few programs


@jax.jit
def vertex_dynamics_mm(
    head: HeadModel, motion: Float[Array, "t 53"], num_frames: Int[Array, ""]
) -> Float[Array, " v"]:
    """Standard deviation over time of every vertex's distance from its place at rest, mm.

    Args:
        head: of v vertices.
        motion: frames after `num_frames` are padding.
        num_frames: that count.
    """
    at_rest = motion_coordinates(head, jnp.zeros_like(motion[:1]))
    distance = _MM_PER_M * surface_distance(at_rest, motion_coordinates(head, motion))  # [t, v]
    valid = length_mask(num_frames[None], len(motion))[0][:, None]
    mean = jnp.sum(jnp.where(valid, distance, 0.0), axis=0) / num_frames
    square = jnp.where(valid, jnp.square(distance - mean[None]), 0.0)
    return jnp.sqrt(jnp.sum(square, axis=0) / num_frames)


class DynamicsDeviation:
    """Deviation of the upper face's dynamics of named motions from the true ones, over many clips.

    FDD of CodeTalker (Xing et al., CVPR 2023): the difference of `vertex_dynamics_mm` averaged over the vertices of
    eyes and forehead. Departure: its absolute value is averaged over clips, so that a clip that moves too much does
    not make up for one that is stiff.
    """

    def __init__(self, head: HeadModel):
        upper_face = np.union1d(head.masks["eyes"], head.masks["forehead"])
        self._head = head_subset(head, upper_face)
        self._deviations = collections.defaultdict(list)

    def add(self, target: Float[np.ndarray, "t 53"], **motions: Float[np.ndarray, "t 53"]) -> None:
        """Counts one clip: motions by name, each of the length of the target.

        Raises:
            ValueError: a motion has another shape than the target.
        """
        truth = self._mean_dynamics(target)
        for name, motion in motions.items():
            if motion.shape != target.shape:
                raise ValueError(f"{name} {motion.shape} and target {target.shape} differ in shape")
            self._deviations[name].append(abs(truth - self._mean_dynamics(motion)))

    def _mean_dynamics(self, motion: np.ndarray) -> float:
        padded = np.pad(motion, ((0, -len(motion) % _STEP_FRAMES), (0, 0)))
        dynamics = vertex_dynamics_mm(self._head, padded, np.int32(len(motion)))
        return float(
            np.mean(dynamics[: -len(JOINT_NAMES)])
        )  # behind the vertices stand the joints' stand-ins

    def value_mm(self, name: str) -> float:
        """Mean over the clips, mm."""
        return float(np.mean(self._deviations[name]))
