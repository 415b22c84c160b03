"""Runs the training step under `jax.pmap`: every device computes on its own rows of the batch.

Everything that is particular to pmap is in this file: how a batch is placed, how the state becomes global again, and
the per-device versions of `collectives`, which make sums, rows and random draws those of the global batch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int

from deeptalk_jax.collectives import replaced_by
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.training.mesh import DATA_AXIS, check_rows
from deeptalk_jax.training.runner import Runner
from deeptalk_jax.training.state import TrainState
from deeptalk_jax.training.step import Step
from deeptalk_jax.types import Array

PyTree = Any


class PmapRunner(Runner):
    """Runs a copy of the step on every device, each with the whole state.

    Raises:
        ConfigError: the mesh has an `fsdp` axis, over which the state would be split.
    """

    def __init__(self, update: Step, mesh: Mesh, state: TrainState, constants: PyTree):
        if mesh.shape[DATA_AXIS] != mesh.size:
            raise ConfigError(
                f"fsdp_devices={mesh.size // mesh.shape[DATA_AXIS]}: expected 1 with parallel='pmap', which keeps the "
                "whole state on every device; use parallel='jit'"
            )

        def on_each_device(state, constants, batch):
            with spanning(DATA_AXIS):
                return update(state, constants, batch)

        self._mesh = mesh
        self._step = jax.pmap(
            on_each_device,
            axis_name=DATA_AXIS,
            in_axes=(None, None, 0),
            out_axes=None,
            devices=list(mesh.devices.flat),
            donate_argnums=0,
        )

    def place(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """See `Runner.place`."""
        check_rows(batch, self._mesh)
        local = len(self._mesh.local_devices)
        return {name: rows.reshape(local, -1, *rows.shape[1:]) for name, rows in batch.items()}

    def compile(self, state: TrainState, constants: PyTree, batch: dict[str, Any]) -> float:
        """See `Runner.compile`."""
        # A compiled pmap expects the rows of all processes, while calling pmap takes those of this process. So pmap
        # compiles in its first call, and only the costs are read here.
        return self._step.lower(state, constants, batch).cost_analysis()["flops"]

    def run(
        self, state: TrainState, constants: PyTree, batch: dict[str, Any]
    ) -> tuple[TrainState, dict[str, Array]]:
        """See `Runner.run`."""
        state, metrics = self._step(state, constants, batch)
        if jax.process_count() > 1:
            state = multihost_utils.host_local_array_to_global_array(state, self._mesh, PartitionSpec())
        return state, metrics


def spanning(axis_name: str) -> AbstractContextManager[None]:
    """Makes `collectives` span the devices of a pmap axis while a function is traced under `jax.pmap`."""
    return replaced_by(_PerDevice(axis_name))


class _PerDevice:
    """Per-device versions of the functions of `collectives`, which document them.

    Args:
        axis_name: name of the axis that `jax.pmap` maps over.
    """

    def __init__(self, axis_name: str):
        self._axis = axis_name

    def global_sum(self, x: Array) -> Array:
        return jax.lax.psum(x, self._axis)

    def global_mean(self, x: Array) -> Array:
        return jax.lax.pmean(jnp.mean(x), self._axis)

    def global_rows(self, x: Array) -> Array:
        return jax.lax.all_gather(x, self._axis, axis=0, tiled=True)

    def local_rows(self, x: Array) -> Array:
        num_rows = x.shape[0] // jax.lax.axis_size(self._axis)
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(self._axis) * num_rows, num_rows)

    def row_numbers(self, num_rows: int) -> Int[Array, " b"]:
        return self.local_rows(jnp.arange(self._global_size(num_rows)))

    def draw_rows(self, draw: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...]) -> Array:
        return self.local_rows(draw((self._global_size(shape[0]), *shape[1:])))

    def mean_gradients(self, gradients: PyTree) -> PyTree:
        # Every device computes the same global loss. The transpose of a sum over n devices is that sum again, so every
        # device counts its own rows n times, and the mean over devices is the gradient.
        return jax.lax.pmean(gradients, self._axis)

    def _global_size(self, num_rows: int) -> int:
        return num_rows * jax.lax.axis_size(self._axis)
