"""Gaussians of the emotion space: pooling those of the windows of a clip, and drawing emotion vectors.

DEEPTalk embeds at most 10 s of speech; pooling gives one emotion for longer clips (docs/method.md, section 9).
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.models.dee import unit_length
from deeptalk_jax.types import Gaussian


def pool_by_precision(gaussians: Sequence[Gaussian], lengths: Sequence[int]) -> Gaussian:
    """Combines the Gaussians of the windows of one clip.

    The mean is the precision-weighted mean, projected to the unit sphere; the precision is the mean precision.
    Windows are weighted by their lengths. A single Gaussian is returned unchanged.

    Args:
        gaussians: one Gaussian `[d]` per window.
        lengths: length of every window, in samples or frames.

    Returns:
        Gaussian of numpy arrays `[d]`.
    """
    if len(gaussians) == 1:
        return Gaussian(*(np.asarray(array) for array in gaussians[0]))
    means, log_variances = (np.stack(arrays) for arrays in zip(*gaussians, strict=True))  # [b, d]
    weights = np.asarray(lengths, np.float32)
    weights = weights / weights.sum()
    precision = weights[:, None] * jnp.exp(-log_variances)
    total = jnp.sum(precision, axis=0, keepdims=True)  # [1, d]
    mean = unit_length(jnp.sum(precision * means, axis=0, keepdims=True) / total)
    return Gaussian(np.asarray(mean)[0], np.asarray(-jnp.log(total))[0])


def draw_emotion(
    gaussian: Gaussian, alpha: float, key: KeyArray, *, mode: str = "standard_deviation"
) -> Float[jax.Array, "t d"]:
    """Draws unit vectors from emotion Gaussians. All rows share one noise vector, so a track stays smooth.

    Args:
        gaussian: `[t, d]`, one row per frame, or one row for a whole clip.
        alpha: spread, 0 or above; 0 gives the mean.
        key: random key.
        mode: `standard_deviation`: `normalise(mean + alpha * std * noise)`, so 1 draws from the learned Gaussian and
            larger values spread more. `log_variance`, as in the published demo: alpha multiplies the log-variance, so
            values above 1 spread less wherever the variance is below 1.
    """
    noise = jax.random.normal(key, (1, gaussian.mean.shape[-1]))
    if mode == "log_variance":
        spread = jnp.where(alpha > 0, jnp.exp(0.5 * alpha * gaussian.log_variance), 0.0)
    else:
        spread = alpha * jnp.exp(0.5 * gaussian.log_variance)
    return unit_length(gaussian.mean + spread * noise)
