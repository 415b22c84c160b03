"""Additive attention biases that depend on distance only (ALiBi, Press et al., ICLR 2022).

DEEPTalk uses them without a causal mask: every bias here is symmetric, computed for the length at hand, so no
length is too long.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deeptalk_jax.types import Array


def alibi_slopes(num_heads: int) -> tuple[float, ...]:
    """Slope of every head: 2^-1 ... 2^-8 for 8 heads.

    A head count that is no power of two takes the slopes of the next lower power, then every other slope of the
    next higher one (Press et al., ICLR 2022, released code's rule as stated in SPEC section 7).

    Raises:
        ValueError: `num_heads` is below 1.
    """
    if num_heads < 1:
        raise ValueError(f"alibi_slopes needs at least one head, got {num_heads}")
    lower = 2 ** int(math.log2(num_heads))
    slopes = [2.0 ** (-8.0 * (head + 1) / lower) for head in range(lower)]
    if lower < num_heads:
        slopes += alibi_slopes(2 * lower)[0::2][: num_heads - lower]
    return tuple(slopes)


def symmetric_alibi(num_heads: int, length: int) -> Float[Array, "h t t"]:
    """`-slope_h * |i - j|`."""
    return periodic_alibi(num_heads, length, period=1)


def periodic_alibi(num_heads: int, length: int, *, period: int) -> Float[Array, "h t t"]:
    """`-slope_h * floor(|i - j| / period)`: no penalty within one period (DEEPTalk's face feature extractor)."""
    # Made inside the program: as a constant, 8 heads of 48 s would weigh 46 MB in every program that has one.
    positions = jnp.arange(length)
    distance = jnp.abs(positions[:, None] - positions[None, :]) // period
    slopes = np.asarray(alibi_slopes(num_heads), np.float32)
    return -slopes[:, None, None] * distance[None].astype(jnp.float32)
