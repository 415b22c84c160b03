"""The best model of a run by a metric of the validation split, kept beside the checkpoints."""

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath

from deeptalk_jax.errors import ConfigError, LostProcess, UserError
from deeptalk_jax.files import is_remote
from deeptalk_jax.training.checkpoints import reason, writing_errors

PyTree = Any


class Criterion(NamedTuple):
    """What makes a model the best.

    Attributes:
        metric: name of a metric of the validation split.
        better: which values are better.
    """

    metric: str
    better: Literal["higher", "lower"]

    def prefers(self, value: float, other: float | None) -> bool:
        """Returns whether a value is better than another one; numbers that are not finite never are."""
        if not math.isfinite(value):
            return False
        if other is None:
            return True
        return value > other if self.better == "higher" else value < other


def criterion_of(metric: str, criteria: Mapping[str, Literal["higher", "lower"]]) -> Criterion | None:
    """Returns the criterion that `config.keep_best` names, or None if it is empty.

    Args:
        metric: value of `config.keep_best`.
        criteria: metrics of the stage that can be named, with the direction that is better.

    Raises:
        ConfigError: the stage has no such metric; the message lists the choices.
    """
    if not metric:
        return None
    if metric not in criteria:
        raise ConfigError(f"keep_best={metric!r}: expected one of {', '.join(criteria)}, or nothing")
    return Criterion(metric, criteria[metric])


class BestModel:
    """Keeps the variables of the best evaluated step, and its value of the criterion.

    They are one Orbax checkpoint, so a run that is killed has either the old or the new best model.

    Args:
        directory: directory of the model; created if missing.
        criterion: what makes a model the best.

    Attributes:
        criterion: see above.
        step: number of steps that the best model has taken; None before the first evaluation.
        value: its value of the criterion; None before the first evaluation.

    Raises:
        UserError: the directory cannot be created, or the model in it cannot be read.
    """

    def __init__(self, directory: epath.PathLike, criterion: Criterion):
        path = epath.Path(directory)
        self.criterion = criterion
        self._directory = path if is_remote(path) else path.absolute()
        with writing_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                self._directory, options=ocp.CheckpointManagerOptions(max_to_keep=1, create=True)
            )
        self.step: int | None = self._manager.latest_step()
        self.value: float | None = None
        if self.step is not None:
            self.value = self._read("note", ocp.args.JsonRestore())[criterion.metric]

    def offer(self, step: int, metrics: Mapping[str, float], variables: PyTree) -> None:
        """Keeps variables if they are better than those before, and waits until they are written.

        Steps up to that of the best model, which a run repeats after it was killed, have been compared before.

        Args:
            step: number of steps taken.
            metrics: metrics of the variables on the validation split.
            variables: arrays on the devices.

        Raises:
            UserError: the evaluation has no such metric, or the directory cannot be written.
        """
        metric = self.criterion.metric
        if metric not in metrics:
            raise UserError(
                f"keep_best={metric!r}: the evaluation on these data has only {', '.join(metrics)}; name one of them"
            )
        value = float(metrics[metric])
        if (self.step is not None and step <= self.step) or not self.criterion.prefers(value, self.value):
            return
        with writing_errors(self._directory):
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    variables=ocp.args.StandardSave(variables), note=ocp.args.JsonSave({metric: value})
                ),
            )
            self._manager.wait_until_finished()
        self.step, self.value = step, value

    def variables(self, like: PyTree) -> PyTree:
        """Returns the variables of the best model.

        Args:
            like: variables with the shapes, types and devices of the result.

        Raises:
            UserError: no evaluation gave a finite value, or the model cannot be read.
        """
        if self.step is None:
            raise UserError(
                f"keep_best={self.criterion.metric!r}: no evaluation on the validation split gave a finite value; the "
                "checkpoints are kept, give another metric"
            )
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._read("variables", ocp.args.StandardRestore(shapes))

    def _read(self, item: str, arguments: ocp.args.CheckpointArgs) -> PyTree:
        try:
            return self._manager.restore(self.step, args=ocp.args.Composite(**{item: arguments}))[item]
        except Exception as error:  # Orbax raises many types for damaged files
            raise UserError(
                f"{self._directory}/{self.step}: the best model cannot be read ({reason(error)}); remove "
                f"{self._directory} to keep the best of the steps that follow"
            ) from error

    def __enter__(self) -> "BestModel":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, LostProcess):  # closing waits for all processes
            self._manager.close()
