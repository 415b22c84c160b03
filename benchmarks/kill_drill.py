"""Benchmark: does training survive being killed at any moment, and does it still give exactly the same weights?

    python -m benchmarks.kill_drill --data_dir=outputs/data

The drill needs the corpus `synthetic_talk` (`python -m data_pipeline.build`). It trains a small motion prior three
times: once without interruption; once with SIGKILL at random moments (during the start, between steps, and while a
checkpoint is written), after each of which the same call resumes the run; and once with a single SIGTERM. A "life" is
one process of a run. Every step is logged, so metrics.jsonl shows how far each life came, and the names of the event
files show the step at which it began.

The last line is a JSON object with

* `kills`: number of SIGKILLs.
* `kills_during_save`: number of kills that left an unfinished checkpoint on disk.
* `most_steps_lost`: largest number of steps since the newest complete checkpoint; at most two checkpoint intervals,
  because the write of one checkpoint may be unfinished.
* `checkpoint_every_steps`: the checkpoint interval.
* `resumed_at_last_save`: whether every life resumed from the newest complete checkpoint.
* `bit_exact`: whether the exported weights equal those of the uninterrupted run byte for byte, and every step is
  logged once.
* `sigterm_s`: seconds from SIGTERM to the end of the process.
* `sigterm_steps_lost`: steps lost by SIGTERM; expected 0.
* `start_s`: seconds from the start of a life to its fifth step.

The exit status is 1 if one of these is not as expected.
"""

import itertools
import json
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from configs import motion_prior
from deeptalk_jax.cli import run_tool

_DATA_DIR = flags.DEFINE_string(
    "data_dir", "outputs/data", "Root directory of all datasets; contains synthetic_talk."
)
_KILLS = flags.DEFINE_integer("kills", 20, "Number of SIGKILLs.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 250, "Steps of each training run.")
_SEED = flags.DEFINE_integer("seed", 0, "Random seed of the moments of the kills.")

_CHECKPOINT_EVERY_STEPS = 3
_PREEMPTION_S = 30  # seconds between SIGTERM and SIGKILL when a cloud preempts a machine
_STUCK_S = 120  # seconds after which a run that makes no progress counts as stuck


def _config(data_dir: str, num_steps: int) -> ConfigDict:
    config = motion_prior.get_config("variant=mini").unlock()
    config.num_steps, config.log_every_steps = num_steps, 1
    config.checkpoint_every_steps = _CHECKPOINT_EVERY_STEPS
    config.data.data_dir, config.data.batch_size = data_dir, 8
    config.model.dim, config.model.mlp_dim, config.model.decoder_mlp_dim = 16, 16, 16
    return config.lock()


def _train(workdir: str, data_dir: str, num_steps: int) -> None:
    from absl import logging

    from deeptalk_jax.cli import use_compilation_cache
    from deeptalk_jax.stages.run import train

    logging.set_verbosity(logging.WARNING)
    use_compilation_cache()
    train(_config(data_dir, num_steps), workdir)


class _Life:
    """One process of a training run, forked from a server that has imported the training code already."""

    def __init__(self, workdir: Path):
        self._checkpoints, self._metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
        self.workdir, self._unfinished = workdir, self._temporary()
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["deeptalk_jax.stages.run"])
        arguments = (str(workdir), _DATA_DIR.value, _NUM_STEPS.value)
        self.process: BaseProcess = context.Process(target=_train, args=arguments)
        self.process.start()

    def _temporary(self) -> set[tuple[str, int]]:
        if not self._checkpoints.exists():
            return set()
        with os.scandir(
            self._checkpoints
        ) as entries:  # with the inode, because a later life may reuse a name
            return {(entry.name, entry.inode()) for entry in entries if "orbax-checkpoint-tmp" in entry.name}

    def is_saving(self) -> bool:
        """Returns whether there is an unfinished checkpoint of this life on disk."""
        return bool(self._temporary() - self._unfinished)

    def logged(self) -> list[int]:
        """Returns the steps of all complete lines on training in metrics.jsonl."""
        text = self._metrics.read_text() if self._metrics.exists() else ""
        return [int(step) for step in re.findall(r'^{"step": (\d+), "train/.*}$', text, re.MULTILINE)]

    def last_step(self) -> int:
        """Returns the last logged step; 0 if there is none."""
        return max(self.logged(), default=0)

    def saved_step(self) -> int:
        """Returns the step of the newest complete checkpoint; 0 if there is none."""
        return max((int(path.name) for path in self._checkpoints.glob("*") if path.name.isdigit()), default=0)

    def beginnings(self) -> list[int]:
        """Returns the first steps of all lives that created an event file, in order of time."""
        files = sorted(self.workdir.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_ctime_ns)
        return [int(path.suffix[1:]) for path in files]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds; exits if the process ends before or makes no progress."""
        end = time.monotonic() + _STUCK_S
        while not condition():
            if not self.process.is_alive() or time.monotonic() > end:
                sys.exit(f"{self.workdir}: the run ended or is stuck at step {self.last_step()}")
            time.sleep(0.002)


def _wait_for_moment(kind: str, life: _Life, rng: random.Random, start_s: float) -> None:
    """Waits until the moment of the kill: during the "start", after a "step", or during a "save"."""
    if kind == "start":
        time.sleep(rng.uniform(0, start_s))
        return
    num_files = len(life.beginnings())
    # The event file appears after the rows of steps that will be repeated are removed from metrics.jsonl.
    life.wait(lambda: len(life.beginnings()) > num_files)
    if kind == "save":
        life.wait(life.is_saving)
    else:
        goal = life.last_step() + rng.randint(1, 10)
        life.wait(lambda: life.last_step() >= goal)
    time.sleep(rng.uniform(0, 0.05))


def _kill_often(workdir: Path, start_s: float) -> dict[str, int | bool]:
    """Kills and restarts a run `--kills` times, then lets it finish."""
    rng = random.Random(_SEED.value)
    during_save = most_lost = saved = 0
    resumed = True
    for number, kind in zip(
        range(1, _KILLS.value + 1), itertools.cycle(("start", "step", "save", "save", "step")), strict=False
    ):
        life = _Life(workdir)
        before = len(life.beginnings())
        _wait_for_moment(kind, life, rng, start_s)
        life.process.kill()
        life.process.join()
        resumed &= all(step == saved for step in life.beginnings()[before:])
        reached, saved = life.last_step(), life.saved_step()
        during_save += life.is_saving()
        most_lost = max(most_lost, reached - saved)
        print(
            f"{number} ({kind}): reached step {reached}, saved {saved}, in a save: {life.is_saving()}",
            flush=True,
        )
    life = _Life(workdir)
    life.process.join()
    complete = life.logged() == list(range(1, _NUM_STEPS.value + 1))
    return {
        "kills": _KILLS.value,
        "kills_during_save": during_save,
        "most_steps_lost": most_lost,
        "checkpoint_every_steps": _CHECKPOINT_EVERY_STEPS,
        "resumed_at_last_save": resumed,
        "bit_exact": complete and life.process.exitcode == 0,
    }


def _terminate(workdir: Path) -> dict[str, float]:
    """Sends SIGTERM to a run after its fifth step and waits for its end."""
    start = time.monotonic()
    life = _Life(workdir)
    life.wait(lambda: life.last_step() >= 5)
    terminated = time.monotonic()
    life.process.terminate()
    life.process.join()
    return {
        "start_s": terminated - start,
        "sigterm_s": time.monotonic() - terminated,
        "sigterm_steps_lost": life.last_step() - life.saved_step(),
    }


def _weights(workdir: Path) -> bytes:
    return (workdir / "model" / "motion_prior.safetensors").read_bytes()


def _drill() -> int:
    with tempfile.TemporaryDirectory() as directory:
        alone, killed, terminated = (Path(directory) / name for name in ("alone", "killed", "terminated"))
        _Life(alone).process.join()  # also fills the compilation cache
        result = _terminate(terminated)
        result |= _kill_often(killed, result["start_s"])
        result["bit_exact"] = result["bit_exact"] and _weights(alone) == _weights(killed)
    print(json.dumps(result))
    killed_well = result["bit_exact"] and result["resumed_at_last_save"]
    few_lost = result["most_steps_lost"] <= 2 * _CHECKPOINT_EVERY_STEPS
    terminated_well = result["sigterm_s"] < _PREEMPTION_S and not result["sigterm_steps_lost"]
    return int(not (killed_well and few_lost and terminated_well))


if __name__ == "__main__":
    run_tool(_drill)
