"""Trains and evaluates the runs one after the other, each in its own process.

A separate process returns its memory, does not take the others down when it is killed for memory, and uses the devices
of this machine only, so that rows on different hosts share no collective. (One JAX runtime over all hosts would not
work: Orbax writes a state that lives on a single host from process 0 only.) The processes are forked from one that has
imported everything and has used no device, so starting one costs little. Compiled programs are shared through the
compilation cache on disk.
"""

import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from deeptalk_jax.errors import Interrupted, UserError
from deeptalk_jax.studies.ablation.results import FAILURE_FILE, read_failure
from deeptalk_jax.studies.ablation.rows import Run
from deeptalk_jax.training.interrupts import Interrupts

_EXIT_FAILED, _EXIT_INTERRUPTED = 1, 3
_POLL_S = 0.2
_MAX_REASON = 200  # characters


def execute(
    runs: Sequence[Run],
    config_of: Callable[[Run], ConfigDict],
    root: Path,
    split: str,
    after_each: Callable[[], None],
) -> list[Run]:
    """Executes runs in turn, and prints the progress and the remaining time to stderr.

    Args:
        runs: runs to execute.
        config_of: returns the config of a run.
        root: work directory of the study.
        split: split to evaluate on.
        after_each: called after each run, also after a failed one.

    Returns:
        The runs that failed; `results.read_failure` returns the reason.

    Raises:
        Interrupted: SIGINT or SIGTERM arrived; the current run has saved its state.
    """
    failed, start = [], time.monotonic()
    for number, run in enumerate(runs):
        _say(_progress(run, number, len(runs), time.monotonic() - start))
        if not _execute_one(run, config_of(run), root, split):
            failed.append(run)
            _say(f"{run} failed: {read_failure(run, root)}")
        after_each()
    return failed


def _progress(run: Run, number: int, total: int, elapsed_s: float) -> str:
    left = total - number - 1
    when = f", about {duration(elapsed_s / number * (left + 1))} to go" if number else ""
    return f"[{number + 1}/{total}] {run}; {left} left after it{when}"


def duration(seconds: float) -> str:
    """Formats a time: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _execute_one(run: Run, config: ConfigDict, root: Path, split: str) -> bool:
    """Executes a run in its own process and returns whether it succeeded."""
    workdir = run.workdir(root)
    (workdir / FAILURE_FILE).unlink(missing_ok=True)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["deeptalk_jax.stages.run"])
    process = context.Process(target=_train_and_evaluate, args=(config, workdir, split))
    with Interrupts() as interrupts:
        process.start()
        while process.is_alive():
            process.join(_POLL_S)
            if interrupts.received is not None:
                process.terminate()  # the training saves its state and exits
                process.join()
    if process.exitcode == _EXIT_INTERRUPTED or interrupts.received is not None:
        raise Interrupted(f"interrupted in {run}; run the same command again to resume")
    if process.exitcode and read_failure(run, root) is None:  # killed, possibly for lack of memory
        _write_failure(workdir, f"its process ended with status {process.exitcode}")
    return process.exitcode == 0


def _train_and_evaluate(config: ConfigDict, workdir: Path, split: str) -> None:
    """Does the work of `train.py` and `eval.py`; exits with a status that `_execute_one` understands."""
    import jax

    from deeptalk_jax.cli import use_compilation_cache
    from deeptalk_jax.stages.run import evaluate, train

    logging.set_verbosity(logging.WARNING)
    use_compilation_cache()
    try:
        if jax.process_count() > 1:
            raise UserError(
                f"this process uses the devices of {jax.process_count()} hosts; expected those of one host"
            )
        train(config, workdir)
        evaluate(config, workdir, split)
    except Interrupted as interrupted:
        _say(str(interrupted))
        sys.exit(_EXIT_INTERRUPTED)
    except Exception as error:  # the other rows run even if one fails
        reason = (str(error).splitlines() or [""])[0]
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        _write_failure(workdir, kind + reason[:_MAX_REASON], traceback.format_exc())
        sys.exit(_EXIT_FAILED)


def _write_failure(workdir: Path, reason: str, details: str = "") -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / FAILURE_FILE).write_text(f"{reason}\n{details}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
