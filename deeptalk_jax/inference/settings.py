"""What a caller may choose about sampling, and the ranges of it."""

from typing import NamedTuple

import numpy as np

from deeptalk_jax.errors import UserError

# Motions of 10 s that one call holds. On a CPU the clips run one after the other, so memory hardly depends on it.
DEFAULT_BATCH_SIZE = 8
_NUM_SEEDS = 2**32  # JAX drops the bits above without a word


class Sampling(NamedTuple):
    """How motions are drawn.

    Attributes:
        temperature_top: of the slow codes; 0 takes the most likely.
        temperature_bottom: of the fast codes.
        top_p: codes of either level are drawn from the most likely ones that reach this probability together, 0 to 1.
        alpha: spread of the emotion; 0 is its mean.
        seed: of everything random.
        num_samples: motions of every sound; the i-th is that of `seed + i`.
        batch_size: most motions of 10 s that run together, at least all samples of one sound.
    """

    temperature_top: float = 0.0
    temperature_bottom: float = 0.0
    top_p: float = 1.0
    alpha: float = 0.0
    seed: int = 0
    num_samples: int = 1
    batch_size: int = DEFAULT_BATCH_SIZE

    def checked(self) -> "Sampling":
        """Itself.

        Raises:
            UserError: names the first setting that is out of its range.
        """
        for name in ("temperature_top", "temperature_bottom", "alpha"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value >= 0):
                raise UserError(f"{name}={value} must be a finite number, 0 or above")
        if not 0 <= self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must lie between 0 and 1")
        for name in ("num_samples", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be 1 or above")
        if not 0 <= self.seed < _NUM_SEEDS:
            raise UserError(f"seed={self.seed} must lie between 0 and 2^32 - 1")
        if self.seed + self.num_samples > _NUM_SEEDS:
            raise UserError(
                f"seed={self.seed} with num_samples={self.num_samples}: the last seed must not pass 2^32 - 1"
            )
        if self.num_samples > 1 and not (self.temperature_top or self.temperature_bottom or self.alpha):
            raise UserError(
                f"num_samples={self.num_samples} would give one motion so many times: temperature_top, "
                "temperature_bottom and alpha are all 0"
            )
        return self
