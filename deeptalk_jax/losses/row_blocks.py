"""Losses over all pairs of a batch, computed by blocks of rows.

Memory then grows with the size of a block instead of the size of the batch.
"""

from collections.abc import Callable
from typing import Any

import einops
import jax

from deeptalk_jax.errors import ConfigError

PyTree = Any


def over_row_blocks(row_losses: Callable[[PyTree], PyTree], rows: PyTree, block_rows: int) -> PyTree:
    """Returns `row_losses(rows)`, computed for `block_rows` rows at a time.

    The backward pass recomputes every block. Block i of m contains rows i, m + i, 2 m + i, ..., so that every block is
    spread over all devices if the rows are.

    Args:
        row_losses: function from arrays `[r, ...]` to arrays `[r, ...]`, in which each row depends on the same row of
            the input only.
        rows: arrays `[b, ...]`.
        block_rows: number of rows per block; 0 means all rows at once.

    Raises:
        ConfigError: `block_rows` does not divide the number of rows.
    """
    if not block_rows:
        return row_losses(rows)
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    if num_rows % block_rows:
        raise ConfigError(f"chunk_rows={block_rows} does not divide a batch of {num_rows} rows")
    blocks = jax.tree.map(lambda x: einops.rearrange(x, "(r m) ... -> m r ...", r=block_rows), rows)
    losses = jax.lax.map(jax.checkpoint(row_losses), blocks)
    return jax.tree.map(lambda x: einops.rearrange(x, "m r ... -> (r m) ..."), losses)
