"""Probabilistic contrastive loss between two sets of Gaussians (PCME++, Chun, ICLR 2024)."""

import jax.numpy as jnp
import optax
from jaxtyping import Bool, Float

from deeptalk_jax.types import Array, Gaussian


def closed_form_sampled_distance(a: Gaussian, b: Gaussian) -> Float[Array, "b c"]:
    """`||mean_a - mean_b||^2 + sum(exp(lv_a) + exp(lv_b))` of every pair: PCME++, equation 1.

    The expected squared distance of a sample of each. By matrix products: no `[b, c, d]` is built.
    """
    # float32: the difference of nearly equal sums would vanish in bf16.
    mean_a, mean_b = a.mean.astype(jnp.float32), b.mean.astype(jnp.float32)
    squared_a = jnp.sum(jnp.square(mean_a), axis=-1)[:, None]
    squared_b = jnp.sum(jnp.square(mean_b), axis=-1)[None, :]
    squared = jnp.maximum(squared_a + squared_b - 2.0 * mean_a @ mean_b.T, 0.0)
    return squared + _total_variance(a)[:, None] + _total_variance(b)[None, :]


def pairwise_sampled_distance(a: Gaussian, b: Gaussian) -> Float[Array, " b"]:
    """The same distance for matching rows only."""
    squared = jnp.sum(jnp.square(a.mean.astype(jnp.float32) - b.mean.astype(jnp.float32)), axis=-1)
    return squared + _total_variance(a) + _total_variance(b)


def _total_variance(gaussian: Gaussian) -> Float[Array, " b"]:
    return jnp.sum(jnp.exp(gaussian.log_variance.astype(jnp.float32)), axis=-1)


def match_logits(
    distance: Float[Array, "..."], scale: Float[Array, ""], shift: Float[Array, ""]
) -> Float[Array, "..."]:
    """`-scale * distance + shift`: logit of the probability that a pair matches (PCME++, equation 2)."""
    return -scale * distance + shift


def match_loss(logits: Float[Array, "b c"], matches: Bool[Array, "b c"]) -> Float[Array, "b c"]:
    """Twice the binary cross-entropy of every pair; DEE's loss before its mean."""
    return 2.0 * optax.sigmoid_binary_cross_entropy(logits, matches.astype(jnp.float32))


def standard_normal_kl(gaussian: Gaussian) -> Float[Array, "b d"]:
    """`-(1 + lv - mean^2 - exp(lv)) / 2` of every channel: KL divergence from N(0, 1)."""
    log_variance = gaussian.log_variance.astype(jnp.float32)
    return -0.5 * (1.0 + log_variance - jnp.square(gaussian.mean) - jnp.exp(log_variance))
