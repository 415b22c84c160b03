"""Errors of facial motion, in millimetres of the head's surface, and agreement of the jaw.

Every function takes one clip, so that padding cannot enter; `MotionErrors`, `RegionErrors` and `Correlation` add up
the frames of many.
"""

import collections
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deeptalk_jax.head.gram import region_factors, squared_distance
from deeptalk_jax.head.lbs import motion_coordinates
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.types import EXPRESSION_DIM, Array

_MM_PER_M = 1000.0
_STEP_FRAMES = 128  # clips are padded to multiples: every length is a program of its own


@jax.jit
def vertex_distances_mm(
    head: HeadModel, motions: dict[str, Float[Array, "_ 53"]], target: Float[Array, "t 53"]
) -> dict[str, tuple[Float[Array, " t"], Float[Array, " t"]]]:
    """Per frame: mean distance over all vertices, and largest distance over the lip vertices.

    The second, averaged over frames, is the lip vertex error (LVE; Richard et al., ICCV 2021).

    Args:
        head: the head that wears the motions.
        motions: `[t, 53]` each, or `[1, 53]` for a pose that is held.
        target: what they are compared with; its vertices are computed once for all.
    """
    truth = motion_coordinates(head, target)
    distances = {}
    for name, motion in motions.items():
        place = motion_coordinates(head, motion)
        distance = _MM_PER_M * surface_distance(place, truth)  # [t, v]
        distances[name] = jnp.mean(distance, axis=-1), jnp.max(distance[:, head.masks["lips"]], axis=-1)
    return distances


def surface_distance(
    a: Sequence[Float[Array, "_ v"]], b: Sequence[Float[Array, "t v"]]
) -> Float[Array, "t v"]:
    """Euclidean distance of points given by x, y and z, in their unit, metres; one frame of `a` is held."""
    squares = (jnp.square(jnp.broadcast_to(x, y.shape) - y) for x, y in zip(a, b, strict=True))
    return jnp.sqrt(sum(squares))


def _padded(motions: dict[str, np.ndarray], target: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Motions and target with frames added up to one of a few lengths, which keeps compilations few.

    Raises:
        ValueError: a motion has neither the shape of the target nor one frame.
    """
    for name, motion in motions.items():
        if motion.shape not in (target.shape, (1, *target.shape[1:])):
            raise ValueError(f"{name} {motion.shape} and target {target.shape} differ in shape")
    padding = ((0, -len(target) % _STEP_FRAMES), (0, 0))
    padded = {
        name: motion if len(motion) == 1 else np.pad(motion, padding) for name, motion in motions.items()
    }
    return padded, np.pad(target, padding)


class MotionErrors:
    """Mean vertex error and lip vertex error of named motions, over the frames of many clips."""

    def __init__(self, head: HeadModel):
        self._head = head
        self._sums = collections.defaultdict(lambda: np.zeros(2))
        self._num_frames = collections.Counter()

    def add(self, target: np.ndarray, **motions: np.ndarray) -> None:
        """Counts one clip.

        Args:
            target: `[t, 53]` true motion.
            motions: by name, `[t, 53]` or, for a pose that is held, `[1, 53]`.

        Raises:
            ValueError: a motion fits the target in neither way.
        """
        num_frames = len(target)
        padded, truth = _padded(motions, target)
        distances = vertex_distances_mm(self._head, padded, truth)
        for name, errors in distances.items():
            self._sums[name] += [np.asarray(error, np.float64)[:num_frames].sum() for error in errors]
            self._num_frames[name] += num_frames

    def vertex_error_mm(self, name: str) -> float:
        """Mean distance over vertices and frames, mm."""
        return float(self._sums[name][0] / self._num_frames[name])

    def lip_error_mm(self, name: str) -> float:
        """Lip vertex error, mm: largest lip distance of a frame, averaged over frames."""
        return float(self._sums[name][1] / self._num_frames[name])


@jax.jit
def _squared_distances(factors, motions, target):
    """Mean squared coordinate error `[t]` in m^2 by motion and region."""
    return {
        name: {
            region: squared_distance(factor, jnp.broadcast_to(motion, target.shape), target)
            for region, factor in factors.items()
        }
        for name, motion in motions.items()
    }


class RegionErrors:
    """Root mean square vertex error of named motions by region of the head, over the frames of many clips.

    Regions are those of `head.gram.head_regions`; no vertices are computed (`head/gram.py`).
    """

    def __init__(self, head: HeadModel):
        self._factors = region_factors(head)
        self._sums = {}
        self._num_frames = collections.Counter()

    def add(self, target: np.ndarray, **motions: np.ndarray) -> None:
        """Counts one clip; arguments and errors as `MotionErrors.add`."""
        padded, truth = _padded(motions, target)
        for name, regions in _squared_distances(self._factors, padded, truth).items():
            sums = self._sums.setdefault(name, dict.fromkeys(regions, 0.0))
            for region, squares in regions.items():
                sums[region] += np.asarray(squares, np.float64)[: len(target)].sum()
            self._num_frames[name] += len(target)

    def rms_mm(self, name: str) -> dict[str, float]:
        """Root of the mean squared distance over a region's vertices and all frames, mm, by region."""
        return {
            region: float(_MM_PER_M * np.sqrt(3.0 * squares / self._num_frames[name]))
            for region, squares in self._sums[name].items()
        }


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
