"""Additive attention biases that depend on distance only (ALiBi, Press et al., ICLR 2022).

Departure from ALiBi: DEEPTalk attends without a causal mask, so every bias here is symmetric. Biases are computed for
the length of the input, which has no upper limit.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.types import Array


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """Returns the slope of every attention head: 2^-1 ... 2^-8 for 8 heads.

    If the number of heads is not a power of two, the slopes of the next lower power come first and every other slope
    of the next higher power follows (the rule of the code released by Press et al.; docs/method.md, section 7).

    Raises:
        ConfigError: `num_heads` is below 1.
    """
    if num_heads < 1:
        raise ConfigError(f"num_heads={num_heads}: expected at least 1")
    lower = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (head + 1) / lower) for head in range(lower)]
    if lower < num_heads:
        slopes += alibi_slopes(2 * lower)[0::2][: num_heads - lower]
    return tuple(slopes)


def symmetric_alibi(num_heads: int, length: int) -> Float[Array, "h t t"]:
    """Returns `-slope_h * |i - j|`."""
    return periodic_alibi(num_heads, length, period=1)


def periodic_alibi(num_heads: int, length: int, *, period: int) -> Float[Array, "h t t"]:
    """Returns `-slope_h * floor(|i - j| / period)`, which has no penalty within one period.

    DEEPTalk's face feature extractor uses a period of 25 frames (docs/method.md, section 4).
    """
    # Computed inside the compiled program. As a constant, the bias of 8 heads over 48 s would add 46 MB to every
    # program that contains it.
    positions = jnp.arange(length)
    distance = jnp.abs(positions[:, None] - positions[None, :]) // period  # [t, t]
    slopes = np.asarray(alibi_slopes(num_heads), np.float32)
    return -slopes[:, None, None] * distance[None].astype(jnp.float32)
