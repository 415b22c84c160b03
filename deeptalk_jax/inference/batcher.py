"""Rows of equal static length, collected until a call is full."""

from collections.abc import Callable, Sequence
from typing import Any

# The length at which `batch_size` rows run together: 10 s, rounded up to a bucket.
_REFERENCE_FRAMES = 256

Row = Any
Result = Any


def rows_per_call(bucket: int, batch_size: int) -> int:
    """Rows of `bucket` frames that run together: `batch_size`, fewer where they are longer than 10 s.

    So a call never holds more sound than `batch_size` clips of 10 s, one row at the least.
    """
    return max(1, min(batch_size, batch_size * _REFERENCE_FRAMES // bucket))


def static_rows(num_rows: int, most: int) -> int:
    """Rows of the compiled call for so many: the next power of two, `most` at the most."""
    return min(1 << (num_rows - 1).bit_length(), most)


class BucketBatcher:
    """Collects rows by bucket and runs each bucket when it is full.

    A call that fails is repeated row by row, so that a row which cannot be done spoils no other.

    Args:
        run: `(bucket, static rows, rows) -> results`, one for each row.
        batch_size: see `rows_per_call`.
    """

    def __init__(self, run: Callable[[int, int, Sequence[Row]], Sequence[Result]], batch_size: int):
        self._run = run
        self._batch_size = batch_size
        self._waiting: dict[int, list[Row]] = {}

    def add(self, bucket: int, row: Row) -> list[tuple[Row, Result]]:
        """Takes a row in; gives what was done if that made its bucket full, else nothing.

        A row that could not be done comes with the exception in place of a result.
        """
        waiting = self._waiting.setdefault(bucket, [])
        waiting.append(row)
        full = len(waiting) >= rows_per_call(bucket, self._batch_size)
        return self._run_bucket(bucket) if full else []

    def flush(self) -> list[tuple[Row, Result]]:
        """Runs the fullest bucket of those that wait; nothing if none does."""
        if not self._waiting:
            return []
        return self._run_bucket(max(self._waiting, key=lambda bucket: len(self._waiting[bucket])))

    def _run_bucket(self, bucket: int) -> list[tuple[Row, Result]]:
        rows = self._waiting.pop(bucket)
        try:
            count = static_rows(len(rows), rows_per_call(bucket, self._batch_size))
            return list(zip(rows, self._run(bucket, count, rows), strict=True))
        except Exception as error:
            if len(rows) == 1:
                return [(rows[0], error)]
        return [(row, self._alone(bucket, row)) for row in rows]

    def _alone(self, bucket: int, row: Row) -> Result:
        try:
            return self._run(bucket, 1, [row])[0]
        except Exception as error:
            return error
