"""Emotion consistency: the distance between two clips in the emotion space of the frozen DEE.

It compares generated motion with its speech, or with the true motion (docs/method.md, section 4.2).
"""

import jax.numpy as jnp
import optax
from jaxtyping import Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.losses.contrastive import match_logits
from deeptalk_jax.losses.distances import paired_sampled_distance
from deeptalk_jax.types import Array, Gaussian

CONSISTENCIES = ("mean", "csd")


def emotion_consistency(
    kind: str, a: Gaussian, b: Gaussian, scale: Float[Array, ""] | float, shift: Float[Array, ""] | float
) -> Float[Array, " b"]:
    """Returns the unreduced loss of matching rows.

    Args:
        kind: "mean" for `||mean_a - mean_b||^2`, "csd" for the binary cross-entropy of the match logit against 1.
        a: Gaussians of the speech, or of the true motion.
        b: Gaussians of the generated motion.
        scale: scale of DEE's match logit; used by "csd" only.
        shift: shift of DEE's match logit; used by "csd" only.

    Raises:
        ConfigError: `kind` is not one of `CONSISTENCIES`.
    """
    if kind == "mean":
        return jnp.sum(jnp.square(a.mean.astype(jnp.float32) - b.mean.astype(jnp.float32)), axis=-1)
    if kind == "csd":
        logits = match_logits(paired_sampled_distance(a, b), scale, shift)  # [b]
        return optax.sigmoid_binary_cross_entropy(logits, jnp.ones_like(logits))
    raise ConfigError(f"consistency={kind!r} is not one of {CONSISTENCIES}")
