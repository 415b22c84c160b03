"""Runs the training step on all devices.

`JitRunner` is the default: one program over a mesh of devices, with global arrays. `config.parallel="pmap"` selects
`pmap_runner.PmapRunner` instead, the only place that knows of pmap.
"""

import abc
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from deeptalk_jax.collectives import over_mesh
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.training.mesh import batch_sharding, replicated, shard_batch, state_sharding
from deeptalk_jax.training.state import TrainState
from deeptalk_jax.training.step import Step
from deeptalk_jax.types import Array

PyTree = Any
PARALLEL = ("jit", "pmap")


class Runner(abc.ABC):
    """Takes training steps on the devices of a mesh.

    Args:
        update: the pure step, see `step.make_update`.
        mesh: devices; the rows of a batch are split over all of them.
        state: training state, or its shapes.
        constants: arrays that the loss reads and no optimiser changes, or their shapes.
    """

    @abc.abstractmethod
    def __init__(self, update: Step, mesh: Mesh, state: TrainState, constants: PyTree): ...

    @abc.abstractmethod
    def place(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Moves this process's rows of a batch to its devices.

        Raises:
            ConfigError: the rows cannot be divided evenly among the devices.
        """

    @abc.abstractmethod
    def compile(self, state: TrainState, constants: PyTree, batch: dict[str, Any]) -> float:
        """Compiles the step for a placed batch.

        Returns:
            Floating-point operations of a step on one device.
        """

    @abc.abstractmethod
    def run(
        self, state: TrainState, constants: PyTree, batch: dict[str, Any]
    ) -> tuple[TrainState, dict[str, Array]]:
        """Takes a step; the memory of the old state is reused.

        Returns:
            The new state, as global arrays, and the metrics of the step.
        """


class JitRunner(Runner):
    """Runs one program over the mesh; large arrays of the state are split over its `fsdp` axis."""

    def __init__(self, update: Step, mesh: Mesh, state: TrainState, constants: PyTree):
        self._mesh = mesh
        self._step = jit_step(update, mesh, state, constants)

    def place(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """See `Runner.place`."""
        return shard_batch(batch, self._mesh)

    def compile(self, state: TrainState, constants: PyTree, batch: dict[str, Any]) -> float:
        """See `Runner.compile`."""
        self._step = self._step.lower(state, constants, batch).compile()
        return self._step.cost_analysis()["flops"]

    def run(
        self, state: TrainState, constants: PyTree, batch: dict[str, Any]
    ) -> tuple[TrainState, dict[str, Array]]:
        """See `Runner.run`."""
        return self._step(state, constants, batch)


def jit_step(update: Step, mesh: Mesh, state: TrainState, constants: PyTree) -> Callable:
    """Returns the jitted step over a mesh; the state is donated. For the arguments see `Runner`."""
    held, read = state_sharding(mesh, state), state_sharding(mesh, constants)

    def on_all_devices(state, constants, batch):
        with over_mesh(mesh):
            return update(state, constants, batch)

    return jax.jit(
        on_all_devices,
        in_shardings=(held, read, batch_sharding(mesh)),
        out_shardings=(held, replicated(mesh)),
        donate_argnums=0,
    )


def make_runner(parallel: str, update: Step, mesh: Mesh, state: TrainState, constants: PyTree) -> Runner:
    """Makes the runner that `config.parallel` names; for the other arguments see `Runner`.

    Raises:
        ConfigError: `parallel` is unknown, or pmap is asked to split the state.
    """
    if parallel == "jit":
        return JitRunner(update, mesh, state, constants)
    if parallel == "pmap":
        from deeptalk_jax.training.pmap_runner import PmapRunner

        return PmapRunner(update, mesh, state, constants)
    raise ConfigError(f"parallel={parallel!r}: expected one of {', '.join(PARALLEL)}")
