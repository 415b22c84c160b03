"""Distances between all rows of two sets of diagonal Gaussians (docs/method.md, section 2).

They are computed by matrix products, so that no `[b, c, d]` array is built.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.types import Array, Gaussian

DISTANCES = ("csd", "wasserstein")


def gaussian_distance(kind: str, a: Gaussian, b: Gaussian) -> Float[Array, "b c"]:
    """Returns the distance of every pair.

    Args:
        kind: "csd" for `closed_form_sampled_distance`, "wasserstein" for `squared_wasserstein_distance`.
        a: b Gaussians.
        b: c Gaussians.

    Raises:
        ConfigError: `kind` is not one of `DISTANCES`.
    """
    if kind == "csd":
        return closed_form_sampled_distance(a, b)
    if kind == "wasserstein":
        return squared_wasserstein_distance(a, b)
    raise ConfigError(f"distance={kind!r} is not one of {DISTANCES}")


def closed_form_sampled_distance(a: Gaussian, b: Gaussian) -> Float[Array, "b c"]:
    """Returns `||mean_a - mean_b||^2 + sum(exp(lv_a) + exp(lv_b))` of every pair (PCME++, Chun, ICLR 2024, equation 1).

    It is the expected squared distance between a sample of one Gaussian and a sample of the other.
    """
    squared = squared_euclidean_distance(a.mean, b.mean)
    return squared + _total_variance(a)[:, None] + _total_variance(b)[None, :]


def paired_sampled_distance(a: Gaussian, b: Gaussian) -> Float[Array, " b"]:
    """Returns the closed-form sampled distance of matching rows only."""
    squared = jnp.sum(jnp.square(a.mean.astype(jnp.float32) - b.mean.astype(jnp.float32)), axis=-1)
    return squared + _total_variance(a) + _total_variance(b)


def squared_wasserstein_distance(a: Gaussian, b: Gaussian) -> Float[Array, "b c"]:
    """Returns `||mean_a - mean_b||^2 + ||sigma_a - sigma_b||^2` of every pair, with sigma = exp(lv / 2).

    It is the squared 2-Wasserstein distance of diagonal Gaussians (Givens and Shortt, 1984).
    """
    return squared_euclidean_distance(_moments(a), _moments(b))


def squared_euclidean_distance(a: Float[Array, "b d"], b: Float[Array, "c d"]) -> Float[Array, "b c"]:
    """Returns `||a - b||^2` of every pair of points."""
    # Full float32 precision: the difference of nearly equal sums would vanish in bfloat16 or TF32.
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    squared_a = jnp.sum(jnp.square(a), axis=-1)[:, None]
    squared_b = jnp.sum(jnp.square(b), axis=-1)[None, :]
    products = jnp.matmul(2.0 * a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(squared_a + squared_b - products, 0.0)


def _total_variance(gaussian: Gaussian) -> Float[Array, " b"]:
    return jnp.sum(jnp.exp(gaussian.log_variance.astype(jnp.float32)), axis=-1)


def _moments(gaussian: Gaussian) -> Float[Array, "b e"]:
    """Returns mean and standard deviation as one vector."""
    deviation = jnp.exp(0.5 * gaussian.log_variance.astype(jnp.float32))
    return jnp.concatenate([gaussian.mean.astype(jnp.float32), deviation], axis=-1)
