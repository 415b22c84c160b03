"""Distances between all rows of two sets of diagonal Gaussians, by matrix products: no `[b, c, d]` is built."""

import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.types import Array, Gaussian

DISTANCES = ("csd", "wasserstein")


def gaussian_distance(kind: str, a: Gaussian, b: Gaussian) -> Float[Array, "b c"]:
    """The distance that a config names.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "csd":
        return closed_form_sampled_distance(a, b)
    if kind == "wasserstein":
        return squared_wasserstein_distance(a, b)
    raise ValueError(f"distance={kind!r} is not one of {DISTANCES}")


def closed_form_sampled_distance(a: Gaussian, b: Gaussian) -> Float[Array, "b c"]:
    """`||mean_a - mean_b||^2 + sum(exp(lv_a) + exp(lv_b))` of every pair: PCME++ (Chun, ICLR 2024), equation 1.

    The expected squared distance of a sample of each.
    """
    squared = squared_euclidean_distance(a.mean, b.mean)
    return squared + _total_variance(a)[:, None] + _total_variance(b)[None, :]


def paired_sampled_distance(a: Gaussian, b: Gaussian) -> Float[Array, " b"]:
    """The closed-form sampled distance of matching rows only."""
    squared = jnp.sum(jnp.square(a.mean.astype(jnp.float32) - b.mean.astype(jnp.float32)), axis=-1)
    return squared + _total_variance(a) + _total_variance(b)


def squared_wasserstein_distance(a: Gaussian, b: Gaussian) -> Float[Array, "b c"]:
    """`||mean_a - mean_b||^2 + ||sigma_a - sigma_b||^2` of every pair, sigma = exp(lv / 2).

    The squared 2-Wasserstein distance of diagonal Gaussians (Givens and Shortt, 1984).
    """
    return squared_euclidean_distance(_moments(a), _moments(b))


def squared_euclidean_distance(a: Float[Array, "b d"], b: Float[Array, "c d"]) -> Float[Array, "b c"]:
    """`||a - b||^2` of every pair of points."""
    # float32 in full: the difference of nearly equal sums would vanish in bf16 or TF32.
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    squared_a = jnp.sum(jnp.square(a), axis=-1)[:, None]
    squared_b = jnp.sum(jnp.square(b), axis=-1)[None, :]
    products = jnp.matmul(2.0 * a, b.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.maximum(squared_a + squared_b - products, 0.0)


def _total_variance(gaussian: Gaussian) -> Float[Array, " b"]:
    return jnp.sum(jnp.exp(gaussian.log_variance.astype(jnp.float32)), axis=-1)


def _moments(gaussian: Gaussian) -> Float[Array, "b e"]:
    """Mean and standard deviation as one vector."""
    deviation = jnp.exp(0.5 * gaussian.log_variance.astype(jnp.float32))
    return jnp.concatenate([gaussian.mean.astype(jnp.float32), deviation], axis=-1)
