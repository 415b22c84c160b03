"""Emotion consistency: do two clips say the same to the frozen DEE (SPEC section 4)?

The same function compares generated motion with its speech (speech-motion) and with true motion (motion-motion).
"""

import jax.numpy as jnp
import optax
from jaxtyping import Float

from deeptalk_jax.losses.contrastive import match_logits
from deeptalk_jax.losses.distances import paired_sampled_distance
from deeptalk_jax.types import Array, Gaussian

CONSISTENCIES = ("mean", "csd")


def emotion_consistency(
    kind: str, a: Gaussian, b: Gaussian, scale: Float[Array, ""] | float, shift: Float[Array, ""] | float
) -> Float[Array, " b"]:
    """How far apart matching rows are in the emotion space.

    Args:
        kind: `mean` for `||mean_a - mean_b||^2`, `csd` for the binary cross-entropy of the match logit against 1.
        a: Gaussians of the speech or of the true motion.
        b: Gaussians of the generated motion.
        scale: DEE's, of the match logit; for `csd` only, like `shift`.
        shift: DEE's.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "mean":
        return jnp.sum(jnp.square(a.mean.astype(jnp.float32) - b.mean.astype(jnp.float32)), axis=-1)
    if kind == "csd":
        logits = match_logits(paired_sampled_distance(a, b), scale, shift)
        return optax.sigmoid_binary_cross_entropy(logits, jnp.ones_like(logits))
    raise ValueError(f"consistency={kind!r} is not one of {CONSISTENCIES}")
