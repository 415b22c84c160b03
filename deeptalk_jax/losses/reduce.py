"""The one place where unreduced losses are masked, weighted and averaged."""

import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.collectives import global_sum
from deeptalk_jax.types import Array


def masked_mean(
    values: Float[Array, "..."],
    mask: Bool[Array, "..."] | None = None,
    weights: Float[Array, "..."] | None = None,
) -> Float[Array, ""]:
    """Mean over the positions of the global batch where `mask` is true, each counted `weights` times; float32.

    `mask` and `weights` have the leading axes of `values`; trailing axes are averaged in full. An empty
    selection gives 0.
    """
    values = values.astype(jnp.float32)
    importance = jnp.ones(values.shape, jnp.float32)
    for factor in (mask, weights):
        if factor is not None:
            trailing = (1,) * (values.ndim - factor.ndim)
            importance = importance * factor.reshape(factor.shape + trailing).astype(jnp.float32)
    # where, not a product: padded positions may hold NaN or infinity.
    total = global_sum(jnp.sum(jnp.where(importance > 0, values, 0.0) * importance))
    return total / jnp.maximum(global_sum(jnp.sum(importance)), 1e-9)


def weighted_total(terms: dict[str, Array], weights: dict[str, float]) -> Float[Array, ""]:
    """Sum of the terms that have a weight.

    Raises:
        KeyError: a weight names a term that was not computed.
    """
    return sum((weight * terms[name] for name, weight in weights.items()), jnp.zeros(()))
