"""The one training loop: every stage runs through `fit`."""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from tqdm import tqdm

from deeptalk_jax.errors import Interrupted, UserError, config_errors
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.training.checkpoints import Checkpoints
from deeptalk_jax.training.failures import StepWatch, averages
from deeptalk_jax.training.interrupts import Interrupts, Signalled
from deeptalk_jax.training.mesh import (
    make_mesh,
    rows_by_device,
    shard_batch,
    sharding_table,
    state_sharding,
)
from deeptalk_jax.training.processes import any_process, as_global, on_host, watching_others
from deeptalk_jax.training.stage_step import stage_step
from deeptalk_jax.training.step import parallel_step
from deeptalk_jax.training.step_trace import StepTrace
from deeptalk_jax.training.throughput import Throughput
from deeptalk_jax.training.trainable import Trainable
from deeptalk_jax.training.writer import MetricWriter

PyTree = Any
ON_NONFINITE = ("stop", "skip")
_CONFIG_FILE = "config.json"  # of a work directory
# In a run: cadences, and on what and how it is computed and read.
_MAY_CHANGE = (
    "log_every_steps",
    "checkpoint_every_steps",
    "eval_every_steps",
    "on_nonfinite",
    "num_devices",
    "parallel",
    "fsdp_devices",
    "remat",
    "data.num_threads",
    "data.cache_bytes",
    "data.unpack_dir",
)


class Trainer:
    """A stage, its devices and its state.

    Args:
        stage: what to train.
        config: the resolved config of the stage.
        window_features: precomputed `Trainable.window_features` of every training window, or None.
    """

    def __init__(
        self,
        stage: Trainable,
        config: ConfigDict,
        window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
    ):
        self.stage, self.config = stage, config
        self.mesh = make_mesh(config.num_devices or None, config.fsdp_devices)
        self.iterator = stage.train_batches(
            num_processes=jax.process_count(),
            process_index=jax.process_index(),
            window_features=window_features,
        )
        self.constants = self._on_devices(stage.constants())
        self.names, initial_state, update = stage_step(
            stage, config, self.constants, features_in_batch=window_features is not None
        )
        key = jax.random.key(config.seed)
        shapes = jax.eval_shape(initial_state, key)
        shardings = state_sharding(self.mesh, shapes)
        if config.fsdp_devices > 1:
            print(f"{stage.name}: state on the devices\n{sharding_table(shapes, shardings)}")
        self.state = jax.jit(initial_state, out_shardings=shardings)(key)
        pretrained = self._on_devices(stage.pretrained_params())
        self.state = self.state.replace(params={**self.state.params, **pretrained})
        self.train_step = parallel_step(update, self.mesh, self.state, self.constants, config.parallel)
        self._to_devices = rows_by_device if config.parallel == "pmap" else shard_batch
        self.throughput = Throughput(config.data.batch_size, self.mesh.local_devices[0])
        self._compiled, self._previous = None, None

    def _on_devices(self, tree: PyTree) -> PyTree:
        return jax.device_put(tree, state_sharding(self.mesh, tree))

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.state.step)

    def variables(self) -> PyTree:
        """Trained variables on the host; all processes must ask."""
        return on_host({"params": self.state.params, **self.state.model_state})

    def next_step(self) -> dict[str, jax.Array]:
        """One step; the metrics stay on the device.

        Nothing waits for the device: while it takes a step, the next batch is read and sent.
        """
        batch = self._to_devices(self.throughput.next_batch(self.iterator, self._previous), self.mesh)
        if self._compiled is None:
            lowered = self.train_step.lower(self.state, self.constants, batch)
            # What pmap compiles wants the rows of all processes; pmap itself takes those of this one.
            by_device = self.config.parallel == "pmap"
            self._compiled = self.train_step if by_device else lowered.compile()
            costs = lowered if by_device else self._compiled
            self.throughput.step_flops = costs.cost_analysis()["flops"]
            self.throughput.restart()
        state, metrics = self._compiled(self.state, self.constants, batch)
        self.state = as_global(state, self.mesh) if self.config.parallel == "pmap" else state
        self._previous = metrics["loss"]
        return metrics


def fit(
    stage: Trainable,
    config: ConfigDict,
    workdir: epath.PathLike,
    window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
    *,
    profile_steps: tuple[int, int] | None = None,
) -> PyTree:
    """Trains a stage to `config.num_steps`, from where the work directory stands.

    Args:
        stage: what to train.
        config: resolved config; written to `workdir/config.json`.
        workdir: gets `config.json`, `metrics.jsonl`, TensorBoard files and `checkpoints/`.
        window_features: precomputed `Trainable.window_features` of every training window; None to compute them in
            the step.
        profile_steps: first and last step to trace into `workdir/profile`, counted from the first of this call.

    Returns:
        Trained variables on the host.

    Raises:
        NonFiniteError: a term became infinite or NaN, see `failures.StepWatch`.
        Interrupted: SIGINT or SIGTERM came; the state is saved and the same command goes on from there.
        LostProcess: another process of this run is gone.
        UserError: the work directory belongs to another config, or cannot be written; a value of the config that
            does not exist.
    """
    if config.on_nonfinite not in ON_NONFINITE:
        raise UserError(f"on_nonfinite={config.on_nonfinite!r} is not one of {', '.join(ON_NONFINITE)}")
    workdir = epath.Path(workdir)
    check_workdir(workdir, config)
    with config_errors():
        trainer = Trainer(stage, config, window_features)
    claim_workdir(workdir, config)  # not before: a value that cannot be used leaves a new directory alone
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        trainer.state = checkpoints.restore(trainer.state, trainer.iterator)
        first = trainer.step
        if first:
            logging.info("%s: continuing at step %d", stage.name, first)
        trace = StepTrace(workdir, profile_steps, config.num_steps - first)
        writes = jax.process_index() == 0
        with (
            Interrupts() as interrupts,
            MetricWriter(workdir, first_step=first) if writes else nullcontext() as writer,
        ):
            try:
                with watching_others():
                    _run(trainer, checkpoints, writer, interrupts, trace)
            finally:
                trace.stop()
    return trainer.variables()


def _run(
    trainer: Trainer,
    checkpoints: Checkpoints,
    writer: MetricWriter | None,
    interrupts: Interrupts,
    trace: StepTrace,
) -> None:
    """Steps, logs, evaluates and saves until the end or a signal; the first process alone has a writer."""
    config, stage = trainer.config, trainer.stage
    first, num_steps = trainer.step, config.num_steps
    watch = StepWatch(stage, trainer.names, trainer.iterator, first)
    pending = []
    trainer.throughput.restart()
    with tqdm(total=num_steps, initial=first, desc=stage.name, unit="step", dynamic_ncols=True) as bar:
        for step in range(first + 1, num_steps + 1):
            trace.before(step - first)
            pending.append(trainer.next_step())
            trace.after(step - first, pending[-1]["loss"])
            bar.update()
            logs = step % config.log_every_steps == 0 or step == num_steps
            signal = _signal_of_all(
                interrupts, logs
            )  # read once: one from here on counts after the next step
            last = step == num_steps or signal is not None
            if logs or last:
                watch.check(trainer.state)
                checkpoints.raise_if_failed()
                rows = jax.device_get(pending)
                watch.count_skipped(rows)
                metrics = averages(rows) | trainer.throughput.rates(len(rows))
                if writer:
                    writer.write(step, metrics, prefix="train")
                bar.set_postfix(loss=metrics["loss"], data_wait=metrics["data_wait"])
                pending = []
            if step % config.checkpoint_every_steps == 0 or last:
                watch.check(trainer.state)
                checkpoints.save(step, trainer.state, trainer.iterator)
            if signal is not None and step < num_steps:
                raise _interrupted(signal, step, checkpoints)
            if config.eval_every_steps and step % config.eval_every_steps == 0 and step < num_steps:
                watch.check(trainer.state)
                try:
                    with interrupts.raising():  # an evaluation may take longer than a preemption allows
                        metrics = stage.evaluate(trainer.variables(), "validation").metrics
                except Signalled:
                    checkpoints.save(step, trainer.state, trainer.iterator)
                    raise _interrupted(interrupts.received, step, checkpoints) from None
                if writer:
                    writer.write(step, metrics, prefix="eval")
                trainer.throughput.restart()


def _signal_of_all(interrupts: Interrupts, logs: bool) -> str | None:
    """The signal that ends the run at this step. Several processes end at the same one: they agree where they log."""
    if jax.process_count() == 1:
        return interrupts.received
    if not logs or not any_process(interrupts.received is not None):
        return None
    return interrupts.received or "another process was signalled"


def _interrupted(signal: str, step: int, checkpoints: Checkpoints) -> Interrupted:
    return Interrupted(f"{signal}: saved step {step} in {checkpoints.directory}; run again to go on")


def check_workdir(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Holds the config that a work directory was begun with, if it was, against this one.

    Raises:
        UserError: the directory holds another config (all but the keys of `_MAY_CHANGE` must agree), or one that cannot
            be read.
    """
    path = epath.Path(workdir) / _CONFIG_FILE
    try:
        if not path.exists():
            return
        before, now = (
            flatten_dict(json.loads(tree), sep=".") for tree in (path.read_text(), _as_json(config))
        )
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be used ({error})") from error
    names = (before.keys() | now.keys()) - set(_MAY_CHANGE)
    changed = sorted(name for name in names if before.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{workdir} was begun with another config (differs in: {', '.join(changed)}); "
            "use another --workdir, or delete this one"
        )


def claim_workdir(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Writes the config into a new work directory, or checks that it is the one that began there.

    Raises:
        UserError: see `check_workdir`; or the directory cannot be written.
    """
    check_workdir(workdir, config)
    path = epath.Path(workdir) / _CONFIG_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with replace_when_whole(path) as temporary:
                temporary.write_text(_as_json(config))
    except OSError as error:
        raise UserError(f"{path}: cannot be used ({error})") from error


def _as_json(config: ConfigDict) -> str:
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2, sort_keys=True)
