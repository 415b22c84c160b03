"""The training loop, shared by all stages: `fit` trains a stage in a work directory.

`Trainer` holds a stage with its devices and state, and takes single steps. `fit` prepares a run and cleans up after it.
`_run` is the loop over steps.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from deeptalk_jax.errors import Interrupted
from deeptalk_jax.progress import progress_bar
from deeptalk_jax.training.average import trained_variables
from deeptalk_jax.training.best import BestModel, criterion_of
from deeptalk_jax.training.checkpoints import Checkpoints, has_checkpoint
from deeptalk_jax.training.config_check import check_config
from deeptalk_jax.training.failures import StepWatch, averages
from deeptalk_jax.training.interrupts import Interrupts, Signalled
from deeptalk_jax.training.mesh import make_mesh, sharding_table, state_sharding
from deeptalk_jax.training.optimiser import make_schedule
from deeptalk_jax.training.processes import any_process, on_host, watching_others
from deeptalk_jax.training.runner import make_runner
from deeptalk_jax.training.start_report import append_run, record_export, start_report
from deeptalk_jax.training.step import stage_step
from deeptalk_jax.training.step_trace import StepTrace
from deeptalk_jax.training.throughput import Throughput
from deeptalk_jax.training.trainable import Trainable
from deeptalk_jax.training.workdir import check_workdir, claim_workdir, read_config
from deeptalk_jax.training.writer import MetricWriter

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
        self.throughput = Throughput(config.data.batch_size, self._mesh.local_devices[0])
        self._schedule = make_schedule(config.optimiser, config.num_steps)
        self._previous_loss = None

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


def fit(
    stage: Trainable,
    config: ConfigDict,
    workdir: epath.PathLike,
    window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
    *,
    profile_steps: tuple[int, int] | None = None,
    source: str = "",
) -> PyTree:
    """Trains a stage up to `config.num_steps`, resuming from the newest checkpoint of the work directory.

    A run may be continued with a larger `config.num_steps`. The learning-rate schedule is then that of the longer run.

    Args:
        stage: stage to train.
        config: resolved config; written to `workdir/config.json`.
        workdir: directory for `config.json`, `metrics.jsonl`, TensorBoard files and `checkpoints/`.
        window_features: see `Trainer`.
        profile_steps: first and last step to trace into `workdir/profile`, counted from 1 at the first step of this
            call.
        source: config file and changed keys, for the report at the start and for `workdir/run.json`; without it, the
            report is not printed.

    Returns:
        Trained variables on the host.

    Raises:
        NonFiniteError: a term became infinite or NaN, see `failures.StepWatch`.
        Interrupted: SIGINT or SIGTERM arrived; the state is saved, and the same command resumes from it.
        LostProcess: another process of this run has ended.
        ConfigError: a value of the config cannot be used.
        UserError: the work directory belongs to another config or cannot be written, or `profile_steps` are more
            than the run takes.
    """
    check_config(config)
    workdir, before = epath.Path(workdir), read_config(workdir)
    criterion = criterion_of(config.keep_best, stage.criteria())
    trainer = _prepare(stage, config, workdir, window_features)
    writes = jax.process_index() == 0
    with (
        Checkpoints(workdir / "checkpoints") as checkpoints,
        BestModel(workdir / "best", criterion) if criterion else nullcontext() as best,
    ):
        trainer.state = checkpoints.restore(trainer.state, trainer.iterator)
        trace = StepTrace(workdir, profile_steps, config.num_steps - trainer.step)
        if writes:
            _announce(trainer, source, workdir, before, best)
        with (
            Interrupts() as interrupts,
            MetricWriter(workdir, first_step=trainer.step) if writes else nullcontext() as writer,
        ):
            try:
                with watching_others():
                    _run(trainer, _Outputs(checkpoints, writer, best), interrupts, trace)
            finally:
                trace.stop()
        variables = trained_variables(trainer.state)
        variables = on_host(best.variables(variables) if best else variables)
    if writes:
        _conclude(trainer, source, workdir, best)
    return variables


def _prepare(
    stage: Trainable,
    config: ConfigDict,
    workdir: epath.Path,
    window_features: Sequence[Mapping[str, np.ndarray]] | None,
) -> Trainer:
    """Makes the trainer of a run, and then its work directory; for the arguments see `fit`."""
    digests = stage.input_digests()
    check_workdir(workdir, config, digests.get)
    trainer = Trainer(stage, config, window_features)
    if not has_checkpoint(workdir / "checkpoints"):
        trainer.start_from(stage.starting_variables())
    claim_workdir(workdir, config, digests)  # last, so that a value that cannot be used leaves no directory
    return trainer


def _announce(
    trainer: Trainer, source: str, workdir: epath.Path, before: ConfigDict | None, best: BestModel | None
) -> None:
    """Writes this start to `run.json`, and prints the plan of a run of `train.py` and whether it has become longer."""
    append_run(workdir, source=source, first_step=trainer.step)
    if trainer.step:
        logging.info("%s: resuming at step %d", trainer.stage.name, trainer.step)
    if source:  # other programs, such as an ablation, have an output of their own
        print(trainer.start_report(source, workdir, best), flush=True)
    config = trainer.config
    if before is None or before.num_steps >= config.num_steps:
        return
    line = f"{trainer.stage.name}: num_steps grows from {before.num_steps} to {config.num_steps}"
    if config.optimiser.schedule == "cosine":
        line += (
            "; the cosine schedule of the learning rate is stretched to the new length, so the rate jumps up"
        )
    print(line, flush=True)


def _conclude(trainer: Trainer, source: str, workdir: epath.Path, best: BestModel | None) -> None:
    """Notes in `run.json` which step is exported, and prints it if it is the best one of a run of `train.py`."""
    if best is None:
        record_export(workdir, step=trainer.step, metrics={})
        return
    metric, value = best.criterion.metric, best.value
    record_export(workdir, step=best.step, metrics={metric: value})
    if source:
        line = f"{trainer.stage.name}: step {best.step} of {trainer.step} is exported, the best by {metric}"
        print(f"{line} on the validation split, {value:.4g}", flush=True)


class _Outputs(NamedTuple):
    """What a run writes while it trains.

    Attributes:
        checkpoints: saved states.
        writer: metrics; None except in process 0.
        best: best model; None if the last one is exported.
    """

    checkpoints: Checkpoints
    writer: MetricWriter | None
    best: BestModel | None


def _run(trainer: Trainer, outputs: _Outputs, interrupts: Interrupts, trace: StepTrace) -> None:
    """Takes steps, logs, saves and evaluates until the last step or a signal."""
    config, stage, checkpoints = trainer.config, trainer.stage, outputs.checkpoints
    first, num_steps = trainer.step, config.num_steps
    watch = StepWatch(stage, trainer.names, trainer.iterator, first)
    pending = []  # metrics of the steps since the last log, on the device
    if first and _evaluates(config, first) and _lacks_evaluation(outputs.writer, first):
        _evaluate(trainer, outputs, interrupts)
    trainer.throughput.restart()
    with progress_bar(total=num_steps, initial=first, desc=stage.name, unit="step") as bar:
        for step in range(first + 1, num_steps + 1):
            trace.before(step - first)
            pending.append(trainer.next_step())
            trace.after(step - first, pending[-1]["loss"])
            bar.update()
            logs = _is_due(step, config.log_every_steps) or step == num_steps
            # Read once per step: a signal that arrives after this line ends the run at the next step.
            signal = _agreed_signal(interrupts, logs)
            last = step == num_steps or signal is not None
            if logs or last:
                watch.check(trainer.state)
                checkpoints.raise_if_failed()
                metrics = _log(trainer, jax.device_get(pending), watch, outputs.writer, step)
                bar.set_postfix(loss=metrics["loss"], data_wait=metrics["data_wait"])
                pending = []
            if _is_due(step, config.checkpoint_every_steps) or last:
                watch.check(trainer.state)
                checkpoints.save(step, trainer.state, trainer.iterator)
            if signal is not None and step < num_steps:
                raise _interrupted(signal, step, checkpoints)
            if _evaluates(config, step):
                watch.check(trainer.state)
                _evaluate(trainer, outputs, interrupts)
                trainer.throughput.restart()


def _is_due(step: int, every_steps: int) -> bool:
    return every_steps > 0 and step % every_steps == 0


def _evaluates(config: ConfigDict, step: int) -> bool:
    """Returns whether a step is evaluated on the validation split; the last one is, too, if any is."""
    return _is_due(step, config.eval_every_steps) or (
        config.eval_every_steps > 0 and step == config.num_steps
    )


def _lacks_evaluation(writer: MetricWriter | None, step: int) -> bool:
    """Returns whether the run ended in the evaluation of the step at which it resumes."""
    return any_process(writer is not None and not writer.has(step, "eval"))


def _agreed_signal(interrupts: Interrupts, logs: bool) -> str | None:
    """Returns the name of the signal that ends the run at this step, or None.

    Several processes must end at the same step, so they agree on steps that log, where they wait for the devices
    anyway. `orbax.checkpoint` has `reached_preemption` for this, but it knows SIGTERM only, and only with several
    processes; Ctrl-C must save the state too.
    """
    if jax.process_count() == 1:
        return interrupts.received
    if not logs or not any_process(interrupts.received is not None):
        return None
    return interrupts.received or "another process was signalled"


def _log(
    trainer: Trainer,
    rows: list[dict[str, np.ndarray]],
    watch: StepWatch,
    writer: MetricWriter | None,
    step: int,
) -> dict[str, float | None]:
    """Averages and writes the metrics of the steps since the last log, one row per step."""
    watch.count_skipped(rows)
    metrics = (
        averages(rows) | trainer.throughput.rates(len(rows)) | {"learning_rate": trainer.learning_rate()}
    )
    if writer:
        writer.write(step, metrics, prefix="train")
    return metrics


def _evaluate(trainer: Trainer, outputs: _Outputs, interrupts: Interrupts) -> None:
    """Evaluates on the validation split; a signal stops it at once, as it may take longer than a preemption allows."""
    step = trainer.step
    try:
        with interrupts.raising():
            metrics = trainer.stage.evaluate(trainer.variables(), "validation").metrics
    except Signalled:
        outputs.checkpoints.save(step, trainer.state, trainer.iterator)
        raise _interrupted(interrupts.received, step, outputs.checkpoints) from None
    if outputs.best:  # before the metrics, without which a run that is killed here evaluates again
        outputs.best.offer(step, metrics, trained_variables(trainer.state))
    if outputs.writer:
        outputs.writer.write(step, metrics, prefix="eval")


def _interrupted(signal: str, step: int, checkpoints: Checkpoints) -> Interrupted:
    return Interrupted(f"{signal}: saved step {step} in {checkpoints.directory}; run again to resume")
