"""Division of every global batch among processes.

The content of a global batch does not depend on the number of processes, so a run can resume with another number.
"""

from collections.abc import Sequence
from typing import Any

import grain

from deeptalk_jax.errors import UserError


class _ProcessRows(Sequence[Any]):
    """Rows `first` to `first + num_rows - 1` of each batch, one batch after the other."""

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
    """Returns the rows that one process reads: a contiguous part of every global batch.

    Process `i` of `n` reads rows `i * batch_size / n` to `(i + 1) * batch_size / n - 1` of each batch.

    Args:
        rows: Endless dataset of the rows of all processes.
        batch_size: Rows of a global batch, over all processes.
        num_processes: Number of processes that share each batch.
        process_index: Index of this process.

    Raises:
        UserError: The index of the process is out of range, or the processes cannot share the batch evenly.
    """
    if not 0 <= process_index < num_processes:
        raise UserError(
            f"process_index={process_index}: expected 0 to {num_processes - 1} with num_processes={num_processes}"
        )
    if batch_size < 1 or batch_size % num_processes:
        raise UserError(
            f"batch_size={batch_size}: expected a positive multiple of num_processes={num_processes}"
        )
    share = batch_size // num_processes
    return grain.MapDataset.source(_ProcessRows(rows, batch_size, process_index * share, share))
