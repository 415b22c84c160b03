"""A stage with its devices and its training state: takes single steps, and measures the validation loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.average import trained_variables
from deeptalk_jax.training.best import BestModel
from deeptalk_jax.training.failures import averages
from deeptalk_jax.training.mesh import make_mesh, sharding_table, state_sharding
from deeptalk_jax.training.optimiser import make_schedule
from deeptalk_jax.training.processes import on_host
from deeptalk_jax.training.runner import make_runner
from deeptalk_jax.training.start_report import start_report
from deeptalk_jax.training.step import stage_step
from deeptalk_jax.training.throughput import Throughput
from deeptalk_jax.training.trainable import Trainable

PyTree = Any


class Trainer:
    """A stage, its devices and its training state.

    Args:
        stage: stage to train.
        config: the resolved config of the stage.
        window_features: precomputed `Trainable.window_features` of every training window; None to compute them in
            the step.

    Attributes:
        iterator: training batches of this process.
        constants: `stage.constants()` on the devices.
        names: sorted names of the step's metrics.
        state: the current training state.
        runner: runs the step on the devices.
        throughput: measures the speed of the run.

    Raises:
        ConfigError: a value of the config cannot be used.
    """

    def __init__(
        self,
        stage: Trainable,
        config: ConfigDict,
        window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
    ):
        self.stage, self.config = stage, config
        self._mesh = make_mesh(config.num_devices or None, config.fsdp_devices)
        self.iterator = stage.train_batches(
            num_processes=jax.process_count(),
            process_index=jax.process_index(),
            window_features=window_features,
        )
        self._validation_batches = self._read_validation() if window_features is None else []
        self.constants = self._on_devices(stage.constants())
        step = stage_step(stage, config, self.constants, features_in_batch=window_features is not None)
        self.names = step.names
        key = jax.random.key(config.seed)
        shapes = jax.eval_shape(step.initial_state, key)
        shardings = state_sharding(self._mesh, shapes)
        if config.fsdp_devices > 1:
            print(f"{stage.name}: state on the devices\n{sharding_table(shapes, shardings)}")
        self.state = jax.jit(step.initial_state, out_shardings=shardings)(key)
        pretrained = self._on_devices(stage.pretrained_params())
        self.state = self.state.replace(params={**self.state.params, **pretrained})
        self.runner = make_runner(config.parallel, step.update, self._mesh, self.state, self.constants)
        # The step reuses the memory of its state.
        self._copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state), out_shardings=shardings)
        self.throughput = Throughput(config.data.batch_size, self._mesh.local_devices[0])
        self._schedule = make_schedule(config.optimiser, config.num_steps)
        self._previous_loss = None

    def _read_validation(self) -> Sequence[Mapping[str, np.ndarray]]:
        """Returns the batches of the validation loss; none if it is not measured, or if there are no data for it."""
        if not self.config.validate_every_steps:
            return []
        try:
            return self.stage.validation_batches(
                self.config.data.validation_batches,
                num_processes=jax.process_count(),
                process_index=jax.process_index(),
            )
        except UserError as error:
            logging.warning("no validation loss: %s", error)
            return []

    def _on_devices(self, tree: PyTree) -> PyTree:
        return jax.device_put(tree, state_sharding(self._mesh, tree))

    def start_from(self, variables: PyTree | None) -> None:
        """Replaces parameters and mutable collections before the first step; None keeps them."""
        if variables is None:
            return
        params, others = variables["params"], {k: v for k, v in variables.items() if k != "params"}
        old = {"params": self.state.params, "model_state": self.state.model_state}
        new = {"params": params, "model_state": others}
        self.state = self.state.replace(
            **jax.tree.map(lambda value, like: jax.device_put(value, like.sharding), new, old)
        )

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return int(self.state.step)

    def start_report(self, source: str, workdir: epath.PathLike, best: BestModel | None) -> str:
        """Returns what the run is about to do, see `start_report.start_report`."""
        return start_report(
            self.config,
            self.state.params,
            source=source,
            data=self.stage.describe_data(),
            head=self.stage.describe_head(),
            devices=self._mesh.size,
            first_step=self.step,
            workdir=workdir,
            best=best,
        )

    def learning_rate(self) -> float:
        """Returns the learning rate of the last step, before the factors of `optimiser.rate_factors`."""
        counts = optax.tree_utils.tree_get_all_with_path(self.state.optimiser_state, "count")
        return float(self._schedule(max(int(counts[0][1]) - 1, 0)))

    def variables(self) -> PyTree:
        """Returns `average.trained_variables` on the host; all processes must call this at the same step."""
        return on_host(trained_variables(self.state))

    def next_step(self) -> dict[str, jax.Array]:
        """Takes one step and returns its metrics, which stay on the device.

        The host does not wait for the device: it reads and sends the next batch while the device computes.
        """
        batch = self.runner.place(self.throughput.next_batch(self.iterator, self._previous_loss))
        if self.throughput.step_flops is None:
            self.throughput.step_flops = self.runner.compile(self.state, self.constants, batch)
            self.throughput.restart()
        self.state, metrics = self.runner.run(self.state, self.constants, batch)
        self._previous_loss = metrics["loss"]
        return metrics

    def validation_loss(self) -> dict[str, float | None]:
        """Returns the means of the loss and its terms over the validation batches; empty if there are none.

        The compiled step runs on a copy of the state, and the state that it returns is dropped. So nothing more is
        compiled, which would take longer than the gradients that are computed in vain. A batch with a term that is not
        finite does not count.
        """
        averaged = self.state.replace(params=trained_variables(self.state)["params"])
        rows = []
        for batch in self._validation_batches:
            copy = self._copy(averaged)
            rows.append(jax.device_get(self.runner.run(copy, self.constants, self.runner.place(batch))[1]))
        means = averages(rows) if rows else {}
        return {name: x for name, x in means.items() if name not in ("gradient_norm", "skipped_steps")}
