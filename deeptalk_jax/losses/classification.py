"""Cross-entropy with class weights, the loss of FER and of the lip reader (docs/method.md, section 1)."""

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from deeptalk_jax.types import Array


def balanced_class_weights(counts: np.ndarray) -> np.ndarray:
    """Returns `total / (classes * count)` in float32, with which every class has the same total weight.

    Args:
        counts: `[c]` number of examples of every class.

    Raises:
        ValueError: a class has no example, so that no weight balances it.
    """
    counts = np.asarray(counts, np.float64)
    if (counts <= 0).any():
        raise ValueError(f"classes {np.flatnonzero(counts <= 0).tolist()} have no example")
    return (counts.sum() / (len(counts) * counts)).astype(np.float32)


def cross_entropy(logits: Float[Array, "... c"], labels: Int[Array, "..."]) -> Float[Array, "..."]:
    """Returns the unreduced cross-entropy in nats, computed in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)
