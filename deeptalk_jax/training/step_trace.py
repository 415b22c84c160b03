"""Traces a few steps of a run, for TensorBoard's profiler or Perfetto."""

import re
from types import TracebackType

import jax
from etils import epath

from deeptalk_jax.errors import UserError


def parse_steps(text: str) -> tuple[int, int] | None:
    """Parses `FIRST:LAST`, such as `10:15` for the 10th to the 15th step that a run takes.

    Returns:
        Both numbers; None for the empty string.

    Raises:
        UserError: the text has another form.
    """
    if not text:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--profile_steps={text}: expected FIRST:LAST, such as 10:15, counted from 1")
    return int(match[1]), int(match[2])


class StepTrace:
    """Traces steps of a run into `workdir/profile`.

    Args:
        workdir: work directory.
        steps: first and last step to trace, counted from 1 at the first step of this run; None for no trace.
        num_steps: number of steps that the run will take.

    Raises:
        UserError: the run ends before the last step to trace.
    """

    def __init__(self, workdir: epath.Path, steps: tuple[int, int] | None, num_steps: int):
        if steps and steps[1] > num_steps:
            raise UserError(
                f"--profile_steps={steps[0]}:{steps[1]}, but the run takes only {num_steps} steps"
            )
        self._directory, self._steps, self._tracing = workdir / "profile", steps, False

    def before(self, number: int) -> None:
        """Starts the trace if step `number` is the first to trace."""
        if self._steps and number == self._steps[0]:
            jax.profiler.start_trace(str(self._directory))
            self._tracing = True

    def after(self, number: int, result: jax.Array) -> None:
        """Ends the trace if step `number` is the last to trace, after waiting for its result."""
        if self._steps and number == self._steps[1]:
            jax.block_until_ready(result)
            self.stop()

    def stop(self) -> None:
        """Ends a trace that is in progress."""
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()  # an interrupted run keeps its part
