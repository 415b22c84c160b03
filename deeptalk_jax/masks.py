"""Masks of valid positions in padded batches."""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from deeptalk_jax.types import Array


def length_mask(lengths: Int[Array, " b"], max_length: int) -> Bool[Array, "b t"]:
    """True for the first `lengths[i]` of `max_length` positions."""
    return jnp.arange(max_length)[None, :] < lengths[:, None]


def zero_padding(x: Float[Array, "b t d"], mask: Bool[Array, "b t"] | None) -> Float[Array, "b t d"]:
    """`x` with zeros where the mask is false, so that a convolution sees what it sees at the end of a lone clip."""
    return x if mask is None else jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
