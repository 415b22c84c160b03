"""Reports and counts training steps with non-finite terms.

The step only sets flags on the device, so that it never waits for the host. The loop reads them when it logs.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from deeptalk_jax.training.state import TrainState
from deeptalk_jax.training.trainable import Trainable

# A skipped step leaves the parameters unchanged, so after this many in a row a good step is unlikely.
_MAX_SKIPPED_IN_A_ROW = 100
_MAX_NAMES = 8  # clips that an error message lists


class NonFiniteError(FloatingPointError):
    """A loss or gradient became infinite or NaN; the message names the step, the terms and the clips."""


class StepWatch:
    """Checks the flags that the training step sets on the device.

    Args:
        stage: stage that is trained.
        names: sorted names of the step's metrics.
        batches: iterator over training batches, positioned before the next step.
        step: number of steps taken.
    """

    def __init__(self, stage: Trainable, names: Sequence[str], batches: Iterator[Any], step: int):
        self._stage, self._names, self._batches = stage, names, batches
        self._skipped_in_a_row = 0
        self._mark(step)

    def _mark(self, step: int) -> None:
        """Remembers the position of the iterator after `step` steps, from which a bad batch can be read again."""
        self._step, self._position = step, copy.deepcopy(self._batches.get_state())

    def check(self, state: TrainState) -> None:
        """Waits for the last step and reads its flags.

        Raises:
            NonFiniteError: a step since the last call had a non-finite term and was not skipped.
        """
        failed_step = int(state.failed_step)
        if failed_step < 0:
            self._mark(int(state.step))
            return
        terms = [name for name, bad in zip(self._names, state.failed_terms, strict=True) if bad]
        raise NonFiniteError(
            f"stage {self._stage.name}: not finite at step {failed_step}: {', '.join(terms)}; "
            f"{self._describe(self._read_again(failed_step))}; the last good checkpoint is kept"
        )

    def _read_again(self, step: int) -> Mapping[str, np.ndarray]:
        self._batches.set_state(self._position)
        for _ in range(step - self._step):
            next(self._batches)
        return next(self._batches)

    def _describe(self, batch: Mapping[str, np.ndarray]) -> str:
        names = self._stage.example_names(batch)
        if not names:
            return "its rows have no names"
        floats = [x for x in batch.values() if np.issubdtype(x.dtype, np.floating)]
        bad = np.any([~np.isfinite(x).all(axis=tuple(range(1, x.ndim))) for x in floats], axis=0)
        if bad.any():
            return "values that are not finite in: " + _listed([names[row] for row in np.flatnonzero(bad)])
        return "all values of the batch are finite; its clips: " + _listed(names)

    def count_skipped(self, rows: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Counts skipped steps in a row.

        Args:
            rows: metrics of each step since the last call.

        Raises:
            NonFiniteError: too many steps in a row were skipped.
        """
        for row in rows:
            self._skipped_in_a_row = 0 if _is_finite(row) else self._skipped_in_a_row + 1
        if self._skipped_in_a_row:
            logging.warning("%s: the last %d steps were skipped", self._stage.name, self._skipped_in_a_row)
        if self._skipped_in_a_row >= _MAX_SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"stage {self._stage.name}: {self._skipped_in_a_row} steps in a row were not finite and were skipped; "
                "train with on_nonfinite=stop to get the names of the clips"
            )


def averages(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float | None]:
    """Averages every metric over the steps that were not skipped (None if all were), and counts the skipped ones."""
    taken = [row for row in rows if _is_finite(row)]
    means = {name: float(np.mean([row[name] for row in taken])) if taken else None for name in rows[0]}
    return {**means, "skipped_steps": len(rows) - len(taken)}


def _is_finite(row: Mapping[str, np.ndarray]) -> bool:
    return all(np.isfinite(value) for value in row.values())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more
