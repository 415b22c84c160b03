"""Lip-reading loss: do two mouths say the same to a network that reads lips (SPEC section 4)?"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.types import Array


def lip_reading_error(features: Float[Array, "b t d"], target: Float[Array, "b t d"]) -> Float[Array, "b t"]:
    """1 - cosine similarity of every frame, 0 to 2; the target is a constant.

    Args:
        features: of the generated mouth.
        target: of the true one.
    """
    target = jax.lax.stop_gradient(target)
    product = jnp.sum(features * target, axis=-1)
    # The root of the product, floored: a frame without features neither divides by zero nor has a gradient.
    squares = jnp.sum(jnp.square(features), axis=-1) * jnp.sum(jnp.square(target), axis=-1)
    return 1.0 - product / jnp.sqrt(jnp.maximum(squares, 1e-16))
