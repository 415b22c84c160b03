"""Masks of valid positions in padded batches."""

import jax.numpy as jnp
from jaxtyping import Bool, Int

from deeptalk_jax.types import Array


def length_mask(lengths: Int[Array, " b"], max_length: int) -> Bool[Array, "b t"]:
    """True for the first `lengths[i]` of `max_length` positions."""
    return jnp.arange(max_length)[None, :] < lengths[:, None]
