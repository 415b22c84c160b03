"""Checkpoints of training state and data iterator, with a fall-back when the newest one is damaged."""

from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.state import TrainState


class Checkpoints:
    """Saves in the background, keeps the last two, restores the newest that can be read.

    Args:
        directory: where the numbered checkpoints lie; made when missing.
        keep: how many to keep. Two, because the newest may be damaged.
    """

    def __init__(self, directory: epath.PathLike, *, keep: int = 2):
        self._directory = epath.Path(directory).absolute()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self._directory}: cannot make the checkpoint directory ({error})") from error
        self._manager = ocp.CheckpointManager(
            self._directory, options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        )

    @property
    def latest_step(self) -> int | None:
        """Step of the newest checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, iterator: Any) -> None:
        """Begins to save; does nothing where this step is saved already."""
        if step == self._manager.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), data=grain.checkpoint.CheckpointSave(iterator)
            ),
        )

    def restore(self, state: TrainState, iterator: Any) -> TrainState:
        """The newest readable checkpoint, on the devices and in the types of `state`; `state` if there is none.

        The iterator is set to where it stood.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored = self._restore_step(step, state, iterator)
            except Exception as error:  # Orbax raises many kinds for damaged files
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                logging.warning("checkpoint %s/%d cannot be read (%s)", self._directory, step, reason)
                continue
            for newer in [number for number in steps if number > step]:
                self._manager.delete(newer)
            return restored
        if steps:
            raise UserError(f"{self._directory}: none of the checkpoints {sorted(steps)} can be read")
        return state

    def _restore_step(self, step: int, state: TrainState, iterator: Any) -> TrainState:
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes), data=grain.checkpoint.CheckpointRestore(iterator)
            ),
        )
        return restored["state"]

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()
