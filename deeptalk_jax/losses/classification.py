"""Cross-entropy with class weights (FER; SPEC section 1)."""

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from deeptalk_jax.types import Array


def balanced_class_weights(counts: np.ndarray) -> np.ndarray:
    """`total / (classes * count)`: every class weighs the same in sum; float32.

    Raises:
        ValueError: a class never occurs, so that no weight balances it.
    """
    counts = np.asarray(counts, np.float64)
    if (counts <= 0).any():
        raise ValueError(f"classes {np.flatnonzero(counts <= 0).tolist()} have no example")
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


def cross_entropy(logits: Float[Array, "... c"], labels: Int[Array, "..."]) -> Float[Array, "..."]:
    """Unreduced cross-entropy in nats; weight and average it with `reduce.masked_mean`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
