"""Masks of the valid positions in padded batches."""

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from deeptalk_jax.types import Array


def length_mask(lengths: Int[Array, " b"], max_length: int) -> Bool[Array, "b t"]:
    """Returns a mask that is true at the first `lengths[i]` of `max_length` positions of row i."""
    return jnp.arange(max_length)[None, :] < lengths[:, None]


def zero_padding(x: Float[Array, "b t d"], mask: Bool[Array, "b t"] | None) -> Float[Array, "b t d"]:
    """Sets padded positions to zero, so that a convolution pads them as it pads the end of a single clip."""
    return x if mask is None else jnp.where(mask[..., None], x, jnp.zeros((), x.dtype))
