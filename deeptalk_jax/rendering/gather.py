"""Gathers and sums of rows by constant indices, with gradients that are gathers too.

The default gradient of a gather is a scatter, which is slow on every backend.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.types import Array


def positions_of(indices: Int[np.ndarray, "..."], num: int) -> Int[np.ndarray, "num m"]:
    """Returns the positions of each number 0 to `num` - 1 in the flattened indices.

    Rows are padded to equal length with the number of indices, which is not a valid position.
    """
    flat = indices.ravel()
    order = np.argsort(flat, kind="stable")
    counts = np.bincount(flat, minlength=num)
    table = np.full((num, counts.max()), flat.size, np.int32)
    position = np.arange(flat.size) - np.repeat(np.cumsum(counts) - counts, counts)
    table[np.repeat(np.arange(num), counts), position] = order
    return table


def take_rows(values: Float[Array, "v d"], indices: Int[np.ndarray, "*n"]) -> Float[Array, "*n d"]:
    """Returns `values[indices]`; the indices must be constants at trace time."""
    positions = positions_of(indices, len(values))

    @jax.custom_vjp
    def take(values):
        return values[indices]

    def backward(_, gradient):
        rows = gradient.reshape(indices.size, gradient.shape[-1])
        return (jnp.sum(jnp.pad(rows, ((0, 1), (0, 0)))[positions], axis=1),)

    take.defvjp(lambda values: (take(values), None), backward)
    return take(values)


def add_rows(values: Float[Array, "n d"], indices: Int[np.ndarray, "n k"], num: int) -> Float[Array, "v d"]:
    """Adds row i of `values` to the rows `indices[i]` of a zero table with `num` rows: the transpose of `take_rows`."""
    positions = positions_of(indices, num) // indices.shape[1]

    @jax.custom_vjp
    def add(values):
        return jnp.sum(jnp.pad(values, ((0, 1), (0, 0)))[positions], axis=1)

    add.defvjp(lambda values: (add(values), None), lambda _, gradient: (jnp.sum(gradient[indices], axis=1),))
    return add(values)
