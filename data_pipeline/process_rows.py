"""Which rows of every global batch a process reads: the batches do not depend on how many processes share them."""

from collections.abc import Sequence
from typing import Any

import grain

from deeptalk_jax.errors import UserError


class _ProcessRows(Sequence[Any]):
    """Rows `first` to `first + num_rows` of each batch, one batch after the other."""

    def __init__(self, rows: grain.MapDataset, batch_size: int, first: int, num_rows: int):
        self._rows, self._batch_size, self._first, self._num_rows = rows, batch_size, first, num_rows

    def __len__(self) -> int:
        return len(self._rows) // self._batch_size * self._num_rows

    def __getitem__(self, index: int) -> Any:
        batch, row = divmod(index, self._num_rows)
        return self._rows[batch * self._batch_size + self._first + row]


def process_rows(
    rows: grain.MapDataset, batch_size: int, num_processes: int, process_index: int
) -> grain.MapDataset:
    """This process's rows of an endless dataset, neighbours in every global batch.

    Args:
        rows: of all processes.
        batch_size: over all processes.
        num_processes: how many share a batch.
        process_index: which of them this is: of n processes, i holds the i-th n-th of each batch.

    Raises:
        UserError: there is no such process, or they cannot share the batch evenly.
    """
    if not 0 <= process_index < num_processes:
        raise UserError(f"process_index={process_index} is not one of num_processes={num_processes}")
    if batch_size < 1 or batch_size % num_processes:
        raise UserError(f"batch_size={batch_size} cannot be divided over num_processes={num_processes}")
    share = batch_size // num_processes
    return grain.MapDataset.source(_ProcessRows(rows, batch_size, process_index * share, share))
