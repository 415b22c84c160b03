"""The one training loop: every stage runs through `fit`."""

import json
import time
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.checkpoints import Checkpoints
from deeptalk_jax.training.interrupts import Interrupts
from deeptalk_jax.training.mesh import make_mesh, replicated, shard_batch
from deeptalk_jax.training.optimiser import make_optimiser
from deeptalk_jax.training.state import create_state, step_key
from deeptalk_jax.training.step import make_train_step, metric_names
from deeptalk_jax.training.trainable import Trainable
from deeptalk_jax.training.writer import MetricWriter

PyTree = Any


class NonFiniteError(FloatingPointError):
    """A loss or gradient became infinite or NaN; the message says at which step and in which term."""


class Interrupted(SystemExit):
    """A signal ended the run after its state was saved."""


class Trainer:
    """A stage, its devices and its state.

    Args:
        stage: what to train.
        config: the resolved config of the stage.
        workdir: work directory; holds config, metrics and checkpoints.
    """

    def __init__(self, stage: Trainable, config: ConfigDict, workdir: epath.PathLike):
        self.stage, self.config = stage, config
        self.workdir = epath.Path(workdir)
        self.mesh = make_mesh(config.num_devices or None)
        self.iterator = stage.train_batches(
            num_processes=jax.process_count(), process_index=jax.process_index()
        )
        self.frozen = jax.device_put(stage.frozen_variables(), replicated(self.mesh))
        optimiser = make_optimiser(config.optimiser, config.num_steps)
        frozen_patterns = config.optimiser.frozen
        shapes = jax.eval_shape(stage.init, jax.random.key(0))
        self.names = self._metric_names(shapes)
        self.state = jax.jit(
            lambda key: create_state(stage.init(key), optimiser, len(self.names), frozen_patterns),
            out_shardings=replicated(self.mesh),
        )(jax.random.key(config.seed))
        pretrained = jax.device_put(stage.pretrained_params(), replicated(self.mesh))
        self.state = self.state.replace(params={**self.state.params, **pretrained})
        self.train_step = make_train_step(stage.loss_fn, optimiser, self.mesh, config.seed, frozen_patterns)

    def _metric_names(self, variables: PyTree) -> list[str]:
        model_state = {name: tree for name, tree in variables.items() if name != "params"}
        step = jax.ShapeDtypeStruct((), np.int32)
        key = jax.eval_shape(lambda: step_key(0, 0))
        batch = self.stage.batch_shapes()
        return metric_names(
            self.stage.loss_fn, variables["params"], model_state, self.frozen, batch, step, key
        )

    @property
    def step(self) -> int:
        """Steps taken."""
        return int(self.state.step)

    def variables(self) -> PyTree:
        """Trained variables on the host."""
        return jax.device_get({"params": self.state.params, **self.state.model_state})

    def next_step(self) -> dict[str, jax.Array]:
        """One step; the metrics stay on the device."""
        batch = shard_batch(next(self.iterator), self.mesh)
        self.state, metrics = self.train_step(self.state, self.frozen, batch)
        return metrics

    def raise_if_failed(self) -> None:
        """Raises `NonFiniteError` where a step has met a non-finite term."""
        failed_step = int(self.state.failed_step)
        if failed_step >= 0:
            broken = np.asarray(self.state.failed_terms)
            terms = ", ".join(name for name, bad in zip(self.names, broken, strict=True) if bad)
            raise NonFiniteError(
                f"stage {self.stage.name}: not finite at step {failed_step}: {terms}; "
                f"the last good checkpoint is kept in {self.workdir / 'checkpoints'}"
            )


def fit(stage: Trainable, config: ConfigDict, workdir: epath.PathLike) -> PyTree:
    """Trains a stage to `config.num_steps`, from where the work directory stands.

    Args:
        stage: what to train.
        config: resolved config; written to `workdir/config.json`.
        workdir: gets `config.json`, `metrics.jsonl`, TensorBoard files and `checkpoints/`.

    Returns:
        Trained variables on the host.

    Raises:
        NonFiniteError: a term became infinite or NaN.
        Interrupted: SIGINT or SIGTERM came; the state is saved and the same command goes on from there.
        UserError: the work directory belongs to another config, or cannot be written.
    """
    workdir = epath.Path(workdir)
    claim_workdir(workdir, config)
    trainer = Trainer(stage, config, workdir)
    checkpoints = Checkpoints(workdir / "checkpoints")
    trainer.state = checkpoints.restore(trainer.state, trainer.iterator)
    if trainer.step:
        logging.info("%s: continuing at step %d", stage.name, trainer.step)
    try:
        with Interrupts() as interrupts, MetricWriter(workdir) as writer:
            _run(trainer, checkpoints, writer, interrupts)
    finally:
        checkpoints.close()
    return trainer.variables()


def _run(trainer: Trainer, checkpoints: Checkpoints, writer: MetricWriter, interrupts: Interrupts) -> None:
    """Steps, logs, evaluates and saves until the end or a signal."""
    config, stage = trainer.config, trainer.stage
    first, num_steps = trainer.step, config.num_steps
    pending, since = [], time.perf_counter()
    with tqdm(total=num_steps, initial=first, desc=stage.name, unit="step", dynamic_ncols=True) as bar:
        for step in range(first + 1, num_steps + 1):
            pending.append(trainer.next_step())
            bar.update()
            last = step == num_steps or interrupts.received is not None
            if step % config.log_every_steps == 0 or last:
                trainer.raise_if_failed()
                metrics = _averages(jax.device_get(pending))
                now = time.perf_counter()
                metrics["steps_per_s"] = len(pending) / (now - since)
                writer.write(step, metrics, prefix="train")
                bar.set_postfix(loss=f"{metrics['loss']:.4g}")
                pending, since = [], now
            if step % config.checkpoint_every_steps == 0 or last:
                trainer.raise_if_failed()
                checkpoints.save(step, trainer.state, trainer.iterator)
            if interrupts.received is not None and step < num_steps:
                raise Interrupted(
                    f"{interrupts.received}: saved step {step} in {trainer.workdir}; run again to go on"
                )
            if config.eval_every_steps and step % config.eval_every_steps == 0 and step < num_steps:
                writer.write(step, stage.evaluate(trainer.variables(), "validation"), prefix="eval")
                since = time.perf_counter()


def _averages(rows: list[dict[str, np.ndarray]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def claim_workdir(workdir: epath.PathLike, config: ConfigDict) -> None:
    """Writes the config into a new work directory, or checks that it is the one that began there.

    Raises:
        UserError: the directory holds another config (all but the cadences must agree), or cannot be written.
    """
    workdir = epath.Path(workdir)
    path = workdir / "config.json"
    text = json.dumps(json.loads(config.to_json_best_effort()), indent=2, sort_keys=True)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)
            return
        before, now = json.loads(path.read_text()), json.loads(text)
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: cannot be used ({error})") from error
    for cadence in ("log_every_steps", "checkpoint_every_steps", "eval_every_steps"):
        now[cadence] = before.get(cadence)
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{workdir} was begun with another config (differs in: {', '.join(changed)}); "
            "use another --workdir, or delete this one"
        )
