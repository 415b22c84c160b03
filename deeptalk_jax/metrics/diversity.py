"""Diversity: distance between motion samples of one clip, in millimetres on the surface of the head.

Variant: root mean square over the vertices of a region, mean over all pairs, frames and clips. ProbTalk3D (Wu et al.,
MIG 2024) takes the mean over vertices instead, over 5 disjoint pairs of 10 samples.
"""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deeptalk_jax.head.gram import region_factors, squared_distance
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.types import Array

REGIONS = ("lips", "face")
_MM_PER_M = 1000.0
_BLOCK_FRAMES = (
    64  # frames per call, the same for all clips, so that there is one compilation and little memory
)


@jax.jit
def pairwise_rms_mm(
    factors: dict[str, Float[Array, "_ 599"]], samples: Float[Array, "n t 53"]
) -> dict[str, Float[Array, " t"]]:
    """Returns the distance between samples per frame, in mm, by region.

    The distance of a pair is the root mean square over the vertices of the region; it is averaged over all pairs. No
    vertices are computed (docs/method.md, section 3.1).

    Args:
        factors: Gram factors by region, of `diversity_factors`.
        samples: two or more motions.
    """
    first, second = np.triu_indices(len(samples), k=1)
    return {
        region: _MM_PER_M
        * jnp.mean(jnp.sqrt(3.0 * squared_distance(factor, samples[first], samples[second])), axis=0)
        for region, factor in factors.items()
    }


def diversity_factors(head: HeadModel) -> dict[str, Float[np.ndarray, "_ 599"]]:
    """Returns the Gram factors of a head for `Diversity`, by region; takes about a second."""
    return region_factors(head, REGIONS)


class Diversity:
    """Accumulates the mean distance between samples for lips and face over the frames of many clips.

    Args:
        factors: Gram factors by region, of `diversity_factors`.
    """

    def __init__(self, factors: dict[str, Float[np.ndarray, "_ 599"]]):
        self._factors = factors
        self._sums, self._num_frames = Counter(), 0

    def add(self, samples: np.ndarray) -> None:
        """Adds the samples `[n, t, 53]` of one clip.

        Raises:
            ValueError: there are fewer than two samples.
        """
        if len(samples) < 2:
            raise ValueError(f"number of samples is {len(samples)}; expected 2 or more")
        num_frames = samples.shape[1]
        for start in range(0, num_frames, _BLOCK_FRAMES):
            block = samples[:, start : start + _BLOCK_FRAMES]
            held = block.shape[1]
            padded = np.pad(block, ((0, 0), (0, _BLOCK_FRAMES - held), (0, 0)))
            for region, distances in pairwise_rms_mm(self._factors, padded).items():
                self._sums[region] += float(np.asarray(distances, np.float64)[:held].sum())
        self._num_frames += num_frames

    def mean_mm(self, region: str) -> float:
        """Returns the mean over pairs and frames in mm; `region` is one of `REGIONS`."""
        return self._sums[region] / self._num_frames
