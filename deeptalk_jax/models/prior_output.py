"""What every motion prior gives, whatever its bottleneck."""

from typing import NamedTuple

from deeptalk_jax.models.quantizer import Quantized
from deeptalk_jax.types import Array, Gaussian


class PriorOutput(NamedTuple):
    """Encoding and reconstruction of a batch of motion windows.

    Attributes:
        motion: `[b, t, 53]` reconstruction.
        levels: quantised latents of every codebook, by the name of its level; none for a prior without codes.
        latents: `[b, k, d]` Gaussians of a variational prior, None for others.
    """

    motion: Array
    levels: dict[str, Quantized]
    latents: Gaussian | None = None

    @property
    def top(self) -> Quantized:
        """The slow level of a hierarchical prior."""
        return self.levels["top"]

    @property
    def bottom(self) -> Quantized:
        """The fast level of a hierarchical prior."""
        return self.levels["bottom"]
