"""Lip-reading loss: distance between the features of two mouths in a visual speech network.

Implements docs/method.md, section 4.2.
"""

import jax
import optax
from jaxtyping import Float

from deeptalk_jax.types import Array


def lip_reading_error(features: Float[Array, "b t d"], target: Float[Array, "b t d"]) -> Float[Array, "b t"]:
    """Returns 1 - cosine similarity of every frame, from 0 to 2.

    Args:
        features: features of the generated mouth.
        target: features of the true mouth, which get no gradient.
    """
    # The norm of features is clipped at 1e-8, so that a frame without features does not divide by zero.
    return optax.cosine_distance(features, jax.lax.stop_gradient(target), epsilon=1e-16)
