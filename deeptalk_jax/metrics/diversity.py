"""How far samples of one clip lie apart, in millimetres of the head's surface."""

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
_BLOCK_FRAMES = 64  # one shape, one compilation, and little memory


@jax.jit
def pairwise_rms_mm(
    factors: dict[str, Float[Array, "_ 599"]], samples: Float[Array, "n t 53"]
) -> dict[str, Float[Array, " t"]]:
    """Distance of two samples in every frame: root mean square over the vertices of a region, mean over all pairs.

    No vertices are computed (`head/gram.py`).

    Args:
        factors: of the distance over each region.
        samples: two or more.
    """
    first, second = np.triu_indices(len(samples), k=1)
    return {
        region: _MM_PER_M
        * jnp.mean(jnp.sqrt(3.0 * squared_distance(factor, samples[first], samples[second])), axis=0)
        for region, factor in factors.items()
    }


class Diversity:
    """Mean pairwise distance of samples over the lips and the whole face, over the frames of many clips."""

    def __init__(self, head: HeadModel):
        self._factors = region_factors(head, REGIONS)
        self._sums, self._num_frames = Counter(), 0

    def add(self, samples: np.ndarray) -> None:
        """Counts the samples `[n, t, 53]` of one clip.

        Raises:
            ValueError: fewer than two.
        """
        if len(samples) < 2:
            raise ValueError(f"{len(samples)} sample makes no pair; expected 2 or more")
        num_frames = samples.shape[1]
        for start in range(0, num_frames, _BLOCK_FRAMES):
            block = samples[:, start : start + _BLOCK_FRAMES]
            held = block.shape[1]
            padded = np.pad(block, ((0, 0), (0, _BLOCK_FRAMES - held), (0, 0)))
            for region, distances in pairwise_rms_mm(self._factors, padded).items():
                self._sums[region] += float(np.asarray(distances, np.float64)[:held].sum())
        self._num_frames += num_frames

    def mean_mm(self, region: str) -> float:
        """Mean over pairs and frames, mm; `region` is one of `REGIONS`."""
        return self._sums[region] / self._num_frames
