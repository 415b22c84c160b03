"""Contrastive losses between two sets of Gaussians or points: PCME, PCME++ and InfoNCE (docs/method.md, section 2).

The probabilistic losses differ only in the logit of a match:

    PCME++ (Chun, ICLR 2024)            match_logits(distance)            closed form
    PCME (Chun et al., CVPR 2021)       sampled_match_logits(samples)     Monte Carlo
                                        -> match_loss, pseudo_match_loss
"""

import einops
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float

from deeptalk_jax.losses.distances import squared_euclidean_distance
from deeptalk_jax.types import Array, Gaussian

MAX_SCALE = 100.0  # largest scale of InfoNCE's logits, as in CLIP
# Squared distances below this value are clipped, so that the gradient of the square root is finite.
_SMALLEST_SQUARE = 1e-12


def match_logits(
    distance: Float[Array, "..."], scale: Float[Array, ""], shift: Float[Array, ""]
) -> Float[Array, "..."]:
    """Returns `-scale * distance + shift`, the logit of the probability that a pair matches (PCME++, equation 2)."""
    return -scale * distance + shift


def gaussian_samples(gaussian: Gaussian, noise: Float[Array, "... n d"]) -> Float[Array, "... n d"]:
    """Returns samples `mean + exp(lv / 2) * noise` of Gaussians `[..., d]`, not normalised.

    Args:
        gaussian: means and log-variances.
        noise: n samples per Gaussian from N(0, 1).
    """
    deviation = jnp.exp(0.5 * gaussian.log_variance.astype(jnp.float32))
    return gaussian.mean.astype(jnp.float32)[..., None, :] + deviation[..., None, :] * noise


def sampled_match_logits(
    a: Float[Array, "b n d"], b: Float[Array, "c m d"], scale: Float[Array, ""], shift: Float[Array, ""]
) -> Float[Array, "b c"]:
    """Returns the logit of the match probability p, averaged over all pairs of samples (PCME, section 3).

    `p = mean of exp(s) / (exp(s) + exp(-s))` with `s = -scale * ||a - b|| + shift`.

    Args:
        a: n samples per row, which may come from a mixture of Gaussians.
        b: m samples per row.
        scale: scale of the distance.
        shift: shift of the logit.
    """
    points_a, points_b = (einops.rearrange(x, "b n d -> (b n) d") for x in (a, b))
    squared = squared_euclidean_distance(points_a, points_b)
    distance = jnp.sqrt(jnp.maximum(squared, _SMALLEST_SQUARE))
    logits = 2.0 * match_logits(distance, scale, shift)  # exp(s) / (exp(s) + exp(-s)) = sigmoid(2 s)
    logits = einops.rearrange(logits, "(b n) (c m) -> b c (n m)", n=a.shape[1], m=b.shape[1])
    # Computed with logarithms, because p of a distant pair is below the smallest float32. The number of pairs cancels.
    match, mismatch = (jax.nn.logsumexp(jax.nn.log_sigmoid(sign * logits), axis=-1) for sign in (1.0, -1.0))
    return match - mismatch


def match_loss(logits: Float[Array, "b c"], matches: Bool[Array, "b c"]) -> Float[Array, "b c"]:
    """Returns twice the binary cross-entropy of every pair, DEE's loss before its mean."""
    return 2.0 * optax.sigmoid_binary_cross_entropy(logits, matches.astype(jnp.float32))


def pseudo_match_loss(logits: Float[Array, "b c"], matches: Bool[Array, "b c"]) -> Float[Array, "b c"]:
    """Returns the binary cross-entropy of every pair, with the pseudo-positives of each row counted as matches.

    PCME++ (section 3.3) adds it to `match_loss` with weight alpha, for the rows and for the columns. If there are no
    pseudo-positives, both directions together equal `match_loss`.
    """
    labels = pseudo_matches(logits, matches).astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits, labels)


def pseudo_matches(logits: Float[Array, "b c"], matches: Bool[Array, "b c"]) -> Bool[Array, "b c"]:
    """Returns true for matches and for pseudo-positives.

    Pseudo-positives are pairs that are at least as likely as some match of the same row (PCME++, section 3.3).
    """
    least = jnp.min(jnp.where(matches, logits, jnp.inf), axis=1, keepdims=True)
    # Matches are included explicitly, because compiled code may round the two sides of the comparison differently.
    return matches | (logits >= least)


def info_nce_scale(log_scale: Float[Array, ""]) -> Float[Array, ""]:
    """Returns `exp(log_scale)`, at most 100 (CLIP, Radford et al., ICML 2021, section 2.5).

    CLIP clips the parameter after each step. Here the gradient passes through the clip instead, so that a scale above
    the limit can decrease again.
    """
    clipped = jnp.minimum(log_scale, np.float32(np.log(MAX_SCALE)))
    return jnp.exp(log_scale + jax.lax.stop_gradient(clipped - log_scale))


def cosine_logits(
    a: Float[Array, "b d"], b: Float[Array, "c d"], scale: Float[Array, ""]
) -> Float[Array, "b c"]:
    """Returns `scale * <a, b>` for all pairs of unit vectors."""
    return scale * jnp.matmul(
        a.astype(jnp.float32), b.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST
    )


def info_nce(logits: Float[Array, "b c"], matches: Bool[Array, "b c"]) -> Float[Array, " b"]:
    """Returns the cross-entropy of each row's match against the whole row, in nats (van den Oord et al., 2018).

    If a row has several matches, their mean is taken (Khosla et al., NeurIPS 2020, equation 2). Every row needs at
    least one.
    """
    positives = matches.astype(jnp.float32)
    labels = positives / jnp.sum(positives, axis=1, keepdims=True)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), labels)


def standard_normal_kl(gaussian: Gaussian) -> Float[Array, "... d"]:
    """Returns `-(1 + lv - mean^2 - exp(lv)) / 2`, the KL divergence of every channel from N(0, 1), in nats.

    Its mean, times a small weight, is the bottleneck term ("VIB") of PCME and DEE.
    """
    log_variance = gaussian.log_variance.astype(jnp.float32)
    return -0.5 * (1.0 + log_variance - jnp.square(gaussian.mean) - jnp.exp(log_variance))
