"""Losses over all pairs of a batch by blocks of rows, so that memory grows with the block instead of the batch."""

from collections.abc import Callable
from typing import Any

import einops
import jax

PyTree = Any


def over_row_blocks(row_losses: Callable[[PyTree], PyTree], rows: PyTree, block_rows: int) -> PyTree:
    """`row_losses(rows)`, computed for `block_rows` rows at a time.

    The backward pass computes every block anew. Block i of m holds rows i, m + i, 2 m + i, ...: where the rows are
    dealt out over devices, each block lies on all of them.

    Args:
        row_losses: from arrays `[r, ...]` to arrays `[r, ...]`, each row of which depends on the same row only.
        rows: arrays `[b, ...]`.
        block_rows: rows of a block; 0 for all rows at once.

    Raises:
        ValueError: `block_rows` does not divide the rows.
    """
    if not block_rows:
        return row_losses(rows)
    num_rows = jax.tree.leaves(rows)[0].shape[0]
    if num_rows % block_rows:
        raise ValueError(f"chunk_rows={block_rows} does not divide a batch of {num_rows} rows")
    blocks = jax.tree.map(lambda x: einops.rearrange(x, "(r m) ... -> m r ...", r=block_rows), rows)
    losses = jax.lax.map(jax.checkpoint(row_losses), blocks)
    return jax.tree.map(lambda x: einops.rearrange(x, "m r ... -> (r m) ..."), losses)
