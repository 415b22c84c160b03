"""Masking, weighting and averaging of unreduced losses over the global batch.

Every loss is reduced here, so that padding and devices are treated alike for all of them.
"""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.collectives import global_sum
from deeptalk_jax.types import Array


def masked_mean(
    values: Float[Array, "..."],
    mask: Bool[Array, "..."] | None = None,
    weights: Float[Array, "..."] | None = None,
) -> Float[Array, ""]:
    """Returns the weighted mean over the positions of the global batch where `mask` is true, in float32.

    Args:
        values: unreduced losses.
        mask: positions that count, with the leading axes of `values`; None means all. Remaining axes are averaged in
            full.
        weights: weights of the positions, with the leading axes of `values`; None means 1.

    Returns:
        The mean; 0 if no position is selected.
    """
    values = values.astype(jnp.float32)
    importance = jnp.ones(values.shape, jnp.float32)
    for factor in (mask, weights):
        if factor is not None:
            trailing = (1,) * (values.ndim - factor.ndim)
            importance = importance * factor.reshape(factor.shape + trailing).astype(jnp.float32)
    # `where` instead of a product, because padded positions may be NaN or infinite.
    total = global_sum(jnp.sum(jnp.where(importance > 0, values, 0.0) * importance))
    return total / jnp.maximum(global_sum(jnp.sum(importance)), 1e-9)


def weighted_total(terms: dict[str, Array], weights: dict[str, float]) -> Float[Array, ""]:
    """Returns the weighted sum of the terms that have a weight.

    Raises:
        KeyError: a weight has the name of a term that was not computed.
    """
    return sum((weight * terms[name] for name, weight in weights.items()), jnp.zeros(()))
