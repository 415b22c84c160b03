"""Upper face dynamics deviation (FDD): how much more or less the upper face moves than in the true motion."""

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
_STEP_FRAMES = 128  # lengths are padded to multiples of this number, so that there are few compilations


@jax.jit
def vertex_dynamics_mm(
    head: HeadModel, motion: Float[Array, "t 53"], num_frames: Int[Array, ""]
) -> Float[Array, " v"]:
    """Returns the standard deviation over time of the distance of every vertex from its rest position, in mm.

    It is the population standard deviation of the unsquared distance, as in the formula of CodeTalker (Xing et al.,
    CVPR 2023); the code of CodeTalker takes the squared distance.

    Args:
        head: head with v vertices.
        motion: motion; frames from `num_frames` on are padding.
        num_frames: number of valid frames.
    """
    at_rest = motion_coordinates(head, jnp.zeros_like(motion[:1]))
    distance = _MM_PER_M * surface_distance(at_rest, motion_coordinates(head, motion))  # [t, v]
    valid = length_mask(num_frames[None], len(motion))[0][:, None]
    mean = jnp.sum(jnp.where(valid, distance, 0.0), axis=0) / num_frames
    square = jnp.where(valid, jnp.square(distance - mean[None]), 0.0)
    return jnp.sqrt(jnp.sum(square, axis=0) / num_frames)


class DynamicsDeviation:
    """Accumulates the FDD of named motions over many clips.

    FDD of CodeTalker (Xing et al., CVPR 2023): the difference of `vertex_dynamics_mm`, averaged over the vertices of
    the masks `eyes` and `forehead`. Departure: absolute differences are averaged over clips, so that a clip with too
    much motion does not compensate for a clip with too little.
    """

    def __init__(self, head: HeadModel):
        upper_face = np.union1d(head.masks["eyes"], head.masks["forehead"])
        self._head = head_subset(head, upper_face)
        self._deviations = collections.defaultdict(list)

    def add(self, target: Float[np.ndarray, "t 53"], **motions: Float[np.ndarray, "t 53"]) -> None:
        """Adds one clip.

        Args:
            target: true motion.
            **motions: motions by name, of the shape of the target.

        Raises:
            ValueError: a motion and the target differ in shape.
        """
        truth = self._mean_dynamics(target)
        for name, motion in motions.items():
            if motion.shape != target.shape:
                raise ValueError(f"{name} {motion.shape} and target {target.shape} differ in shape")
            self._deviations[name].append(abs(truth - self._mean_dynamics(motion)))

    def _mean_dynamics(self, motion: np.ndarray) -> float:
        padded = np.pad(motion, ((0, -len(motion) % _STEP_FRAMES), (0, 0)))
        dynamics = vertex_dynamics_mm(self._head, padded, np.int32(len(motion)))
        # `head_subset` appends one vertex per joint.
        return float(np.mean(dynamics[: -len(JOINT_NAMES)]))

    def value_mm(self, name: str) -> float:
        """Returns the mean over clips, in mm."""
        return float(np.mean(self._deviations[name]))
