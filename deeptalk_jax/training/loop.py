"""The training loop, shared by all stages: `fit` trains a stage in a work directory.

`fit` prepares a run and cleans up after it; `_run` is the loop over steps, which `trainer.Trainer` takes.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import numpy as np
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
from deeptalk_jax.training.processes import any_process, on_host, watching_others
from deeptalk_jax.training.start_report import append_run, record_export
from deeptalk_jax.training.step_trace import StepTrace
from deeptalk_jax.training.trainable import Trainable
from deeptalk_jax.training.trainer import Trainer
from deeptalk_jax.training.workdir import check_workdir, claim_workdir, read_config
from deeptalk_jax.training.writer import MetricWriter

PyTree = Any


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
        The variables to export, on the host: the trained ones, or those of the best step with `config.keep_best`, each
        as `average.trained_variables` returns them.

    Raises:
        NonFiniteError: a term became infinite or NaN, see `failures.StepWatch`.
        Interrupted: SIGINT or SIGTERM arrived; the state is saved, and the same command resumes from it.
        LostProcess: another process of this run has ended.
        ConfigError: a value of the config cannot be used.
        UserError: the work directory belongs to another config or cannot be written, or `profile_steps` are more
            than the run takes.
    """
    check_config(config)
    criterion = criterion_of(config.keep_best, stage.criteria())
    workdir, before = epath.Path(workdir), read_config(workdir)
    trainer = _prepare(stage, config, workdir, window_features)
    writes = jax.process_index() == 0
    with (
        Checkpoints(workdir / "checkpoints") as checkpoints,
        BestModel(workdir / "best", criterion) if criterion else nullcontext() as best,
    ):
        trainer.state = checkpoints.restore(trainer.state, trainer.iterator)
        if writes:
            _announce(trainer, source, workdir, before, best)
        with (
            Interrupts() as interrupts,
            MetricWriter(workdir, first_step=trainer.step) if writes else nullcontext() as writer,
            StepTrace(workdir, profile_steps, config.num_steps - trainer.step) as trace,
            watching_others(),
        ):
            _run(trainer, _Outputs(checkpoints, writer, best), interrupts, trace)
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
    if (
        first
        and _is_due(first, config.eval_every_steps, num_steps)
        and _lacks_evaluation(outputs.writer, first)
    ):
        _evaluate(trainer, outputs, interrupts)
    trainer.throughput.restart()
    with progress_bar(total=num_steps, initial=first, desc=stage.name, unit="step") as bar:
        for step in range(first + 1, num_steps + 1):
            trace.before(step - first)
            pending.append(trainer.next_step())
            trace.after(step - first, pending[-1]["loss"])
            bar.update()
            validates = _is_due(step, config.validate_every_steps, num_steps)
            evaluates = _is_due(step, config.eval_every_steps, num_steps)
            # Before other work, because the speed of the steps is measured from log to log.
            logs = _is_due(step, config.log_every_steps, num_steps) or validates or evaluates
            # Read once per step: a signal that arrives after this line ends the run at the next step.
            signal = _agreed_signal(interrupts, logs)
            last = step == num_steps or signal is not None
            if logs or last:
                watch.check(trainer.state)
                checkpoints.raise_if_failed()
                metrics = _log(trainer, jax.device_get(pending), watch, outputs.writer, step)
                bar.set_postfix(loss=metrics["loss"], data_wait=metrics["data_wait"])
                pending = []
            if validates and signal is None:
                _validate(trainer, outputs.writer, step)
            if _is_due(step, config.checkpoint_every_steps) or last:
                watch.check(trainer.state)
                checkpoints.save(step, trainer.state, trainer.iterator)
            if signal is not None and step < num_steps:
                raise _interrupted(signal, step, checkpoints)
            if evaluates:
                watch.check(trainer.state)
                _evaluate(trainer, outputs, interrupts)


def _is_due(step: int, every_steps: int, last_step: int = 0) -> bool:
    """Returns whether something is due that is done every so many steps, unless 0, and at a last step."""
    return every_steps > 0 and (step % every_steps == 0 or step == last_step)


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


def _validate(trainer: Trainer, writer: MetricWriter | None, step: int) -> None:
    """Measures the validation loss and writes it."""
    means = trainer.validation_loss()
    if writer and means:
        writer.write(step, means, prefix="validation")
    trainer.throughput.restart()


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
    trainer.throughput.restart()


def _interrupted(signal: str, step: int, checkpoints: Checkpoints) -> Interrupted:
    return Interrupted(f"{signal}: saved step {step} in {checkpoints.directory}; run again to resume")
