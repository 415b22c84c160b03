"""Output of a motion prior, the same for all three kinds.

The kinds are `MotionPrior` (TH-VQVAE), `OneLevelPrior` (plain VQ-VAE) and `TemporalVAE`. Each is a module
`(motion, *, train=False) -> PriorOutput` with a property `codebook_sizes`, the number of codes of every level by name.
"""

from typing import NamedTuple

from deeptalk_jax.models.quantizer import Quantized
from deeptalk_jax.types import Array, Gaussian


class PriorOutput(NamedTuple):
    """Encoding and reconstruction of a batch of motion windows.

    Attributes:
        motion: `[b, t, 53]` reconstruction, float32.
        levels: quantised latents by level name: `top` and `bottom` for `MotionPrior`, `codes` for `OneLevelPrior`,
            empty for `TemporalVAE`. The keys are those of the prior's `codebook_sizes`.
        latents: `[b, k, d]` Gaussians of `TemporalVAE`; None for priors with codes.
    """

    motion: Array
    levels: dict[str, Quantized]
    latents: Gaussian | None = None

    @property
    def top(self) -> Quantized:
        """The top (slow) level of `MotionPrior`."""
        return self.levels["top"]

    @property
    def bottom(self) -> Quantized:
        """The bottom (fast) level of `MotionPrior`."""
        return self.levels["bottom"]
