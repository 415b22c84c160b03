"""Checkpoints of training state and data iterator; restoring falls back to an older one if the newest is damaged."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from logging import LogRecord
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from deeptalk_jax.errors import LostProcess, UserError
from deeptalk_jax.files import is_remote
from deeptalk_jax.training.processes import may_be_lost
from deeptalk_jax.training.state import TrainState


def has_checkpoint(directory: epath.PathLike) -> bool:
    """Returns whether a directory has a complete checkpoint; unfinished ones have longer names than their step."""
    path = epath.Path(directory)
    return path.is_dir() and any(child.name.isdigit() for child in path.iterdir())


def read_newest(directory: epath.PathLike, shapes: TrainState) -> TrainState:
    """Reads the state of the newest readable checkpoint onto the first device; changes nothing in the directory.

    Args:
        directory: directory of the numbered checkpoints; a run may be writing there.
        shapes: state with the shapes and types of the one to read.

    Raises:
        UserError: no checkpoint can be read.
    """
    directory = epath.Path(directory)
    path = directory if is_remote(directory) else directory.absolute()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    with ocp.CheckpointManager(path, options=ocp.CheckpointManagerOptions(read_only=True)) as manager:
        for step in sorted(manager.all_steps(), reverse=True):
            try:
                return manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes)))[
                    "state"
                ]
            except Exception as error:  # Orbax raises many types for damaged files
                logging.warning("checkpoint %s/%d cannot be read (%s)", directory, step, reason(error))
    raise UserError(f"{directory}: no checkpoint can be read")


class Checkpoints:
    """Saves checkpoints in the background and restores the newest one that can be read.

    Args:
        directory: directory of the numbered checkpoints; created if missing.
        keep: number of checkpoints to keep. Two by default, because the newest may be damaged.

    Raises:
        UserError: the directory cannot be created.
    """

    def __init__(self, directory: epath.PathLike, *, keep: int = 2):
        path = epath.Path(directory)
        self.directory = path if is_remote(path) else path.absolute()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self.directory, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
            )
        except OSError as error:
            raise UserError(
                f"{self.directory}: the checkpoint directory cannot be created ({error})"
            ) from error
        logging.get_absl_logger().addFilter(_is_no_traceback_of_orbax)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, iterator: Any) -> None:
        """Starts to save in the background; does nothing if this step is saved already.

        It waits for the previous save first.

        Raises:
            UserError: this checkpoint or the previous one cannot be written.
        """
        if step == self._manager.latest_step():
            return
        with writing_errors(self.directory):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(iterator.get_state())
                ),
            )

    def raise_if_failed(self) -> None:
        """Raises `UserError` if the save in the background has failed; does not wait for it to finish."""
        with writing_errors(self.directory):
            self._manager.check_for_errors()

    def restore(self, state: TrainState, iterator: Any) -> TrainState:
        """Restores the newest readable checkpoint and deletes newer, damaged ones.

        Args:
            state: state with the shapes, types and devices of the restored one.
            iterator: data iterator; it is set to its position at the checkpoint.

        Returns:
            The restored state, or `state` if there are no checkpoints.

        Raises:
            UserError: there are checkpoints, but none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._restore_step(step, state, iterator)
            except Exception as error:  # Orbax raises many types for damaged files
                logging.warning("checkpoint %s/%d cannot be read (%s)", self.directory, step, reason(error))
                continue
            for newer in [number for number in steps if number > step]:
                self._manager.delete(newer)
            return restored
        if steps:
            raise UserError(f"{self.directory}: none of the checkpoints {sorted(steps)} can be read")
        return state

    def _restore_step(self, step: int, state: TrainState, iterator: Any) -> TrainState:
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardRestore(shapes), data=ocp.args.JsonRestore()),
        )
        iterator.set_state(restored["data"])
        return restored["state"]

    def close(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
            UserError: it cannot be written.
        """
        with writing_errors(self.directory):
            try:
                self._manager.wait_until_finished()
            finally:
                self._manager.close()
                logging.get_absl_logger().removeFilter(_is_no_traceback_of_orbax)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, LostProcess):  # closing waits for all processes
            self.close()


@contextmanager
def writing_errors(directory: epath.Path) -> Iterator[None]:
    """Raises `UserError` for an error while a checkpoint is written in a directory."""
    try:
        yield
    except Exception as error:  # a full disk can show as OSError, ValueError or XlaRuntimeError
        if may_be_lost(error):
            raise
        raise UserError(f"{directory}: a checkpoint cannot be written ({reason(error)})") from error


def _is_no_traceback_of_orbax(record: LogRecord) -> bool:
    """Filters out the tracebacks that Orbax logs in its threads; it raises the same errors in the main thread."""
    return not (record.exc_info and Path(record.pathname).is_relative_to(Path(ocp.__file__).parent))


def reason(error: Exception) -> str:
    """Returns the first line of an error, or that the disk is full."""
    if (full := os.strerror(errno.ENOSPC)) in str(error):
        return f"the disk is full: {full}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
