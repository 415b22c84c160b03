"""Errors of facial motion in millimetres on the surface of the head, and correlation of the jaw.

`MotionErrors`, `RegionErrors` and `Correlation` take one clip at a time, without padding, and pool the frames of all
clips.
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
_STEP_FRAMES = 128  # lengths are padded to multiples of this number, so that there are few compilations


@jax.jit
def vertex_distances_mm(
    head: HeadModel, motions: dict[str, Float[Array, "_ 53"]], target: Float[Array, "t 53"]
) -> dict[str, tuple[Float[Array, " t"], Float[Array, " t"]]]:
    """Returns per frame the mean distance over all vertices and the largest distance over lip vertices, in mm.

    Both are unsquared L2 distances. Averaged over frames, the first is the mean vertex error (MVE; VOCA, Cudeiro et
    al., CVPR 2019) and the second the lip vertex error (LVE; MeshTalk, Richard et al., ICCV 2021). The code of
    CodeTalker and FaceDiffuser averages the squared maximum instead, in m^2.

    Args:
        head: head model; its mask `lips` selects the lip vertices.
        motions: motions by name, `[t, 53]` each, or `[1, 53]` for a constant pose.
        target: true motion.
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
    """Returns the Euclidean distance between points given by their x, y and z, in metres.

    Args:
        a: three coordinates, `[t, v]` each, or `[1, v]` for a constant position.
        b: three coordinates, `[t, v]` each.
    """
    squares = (jnp.square(jnp.broadcast_to(x, y.shape) - y) for x, y in zip(a, b, strict=True))
    return jnp.sqrt(sum(squares))


def _padded(motions: dict[str, np.ndarray], target: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Pads motions and target to a multiple of `_STEP_FRAMES`.

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
    """Accumulates mean vertex error and lip vertex error of named motions over the frames of many clips.

    See `vertex_distances_mm` for the variants.
    """

    def __init__(self, head: HeadModel):
        self._head = head
        self._sums = collections.defaultdict(lambda: np.zeros(2))
        self._num_frames = collections.Counter()

    def add(self, target: np.ndarray, **motions: np.ndarray) -> None:
        """Adds one clip.

        Args:
            target: `[t, 53]` true motion.
            **motions: motions by name, `[t, 53]` each, or `[1, 53]` for a constant pose.

        Raises:
            ValueError: a motion has neither the shape of the target nor one frame.
        """
        num_frames = len(target)
        padded, truth = _padded(motions, target)
        distances = vertex_distances_mm(self._head, padded, truth)
        for name, errors in distances.items():
            self._sums[name] += [np.asarray(error, np.float64)[:num_frames].sum() for error in errors]
            self._num_frames[name] += num_frames

    def vertex_error_mm(self, name: str) -> float:
        """Returns the mean vertex error (MVE): L2 distance averaged over vertices and frames, in mm."""
        return float(self._sums[name][0] / self._num_frames[name])

    def lip_error_mm(self, name: str) -> float:
        """Returns the lip vertex error (LVE): largest lip distance per frame, averaged over frames, in mm."""
        return float(self._sums[name][1] / self._num_frames[name])


@jax.jit
def _squared_distances(factors, motions, target):
    """Returns the mean squared coordinate error `[t]` in m^2, by motion and region."""
    return {
        name: {
            region: squared_distance(factor, jnp.broadcast_to(motion, target.shape), target)
            for region, factor in factors.items()
        }
        for name, motion in motions.items()
    }


class RegionErrors:
    """Accumulates the root mean square vertex error of named motions by region of the head, over many clips.

    ARTalk (Chu et al., 2025) prints it for the whole head as MHD. Regions are those of `head.gram.head_regions`. No
    vertices are computed (docs/method.md, section 3.1).
    """

    def __init__(self, head: HeadModel):
        self._factors = region_factors(head)
        self._sums = {}
        self._num_frames = collections.Counter()

    def add(self, target: np.ndarray, **motions: np.ndarray) -> None:
        """Adds one clip; arguments and errors as in `MotionErrors.add`."""
        padded, truth = _padded(motions, target)
        for name, regions in _squared_distances(self._factors, padded, truth).items():
            sums = self._sums.setdefault(name, dict.fromkeys(regions, 0.0))
            for region, squares in regions.items():
                sums[region] += np.asarray(squares, np.float64)[: len(target)].sum()
            self._num_frames[name] += len(target)

    def rms_mm(self, name: str) -> dict[str, float]:
        """Returns the root of the mean squared distance over vertices and frames in mm, by region."""
        return {
            region: float(_MM_PER_M * np.sqrt(3.0 * squares / self._num_frames[name]))
            for region, squares in self._sums[name].items()
        }


def jaw_opening(motion: np.ndarray) -> np.ndarray:
    """Returns `[t]` rotations of the jaw about the x axis in radians; positive is open."""
    return motion[..., EXPRESSION_DIM]


class Correlation:
    """Accumulates the Pearson correlation of two signals over the frames of many clips."""

    def __init__(self):
        self._predicted, self._target = [], []

    def add(self, predicted: np.ndarray, target: np.ndarray) -> None:
        """Adds the signals `[t]` of one clip."""
        self._predicted.append(np.asarray(predicted, np.float64))
        self._target.append(np.asarray(target, np.float64))

    @property
    def value(self) -> float:
        """Correlation coefficient; 0 if either signal is constant."""
        predicted, target = np.concatenate(self._predicted), np.concatenate(self._target)
        if predicted.std() == 0 or target.std() == 0:
            return 0.0
        return float(np.corrcoef(predicted, target)[0, 1])
