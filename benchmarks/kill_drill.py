"""Kills training again and again, and compares what comes out with a run that was left alone.

    python -m benchmarks.kill_drill --data_dir=outputs/data

A small motion prior gets SIGKILL at random moments: while it starts, between steps, and while it writes a checkpoint.
Each time the same call goes on. Steps are logged one by one, so that metrics.jsonl tells how far a life had come, and
the names of the event files where the lives began. Another run gets one SIGTERM.

The last line is one JSON object: `kills`, `kills_during_save` (an unfinished checkpoint was on disk),
`most_steps_lost` (since the newest complete checkpoint; at most two intervals, because one may still be in writing),
`checkpoint_every_steps`, `went_on_at_last_save` (every life did), `bit_exact` (the exported weights are those of the
run that was left alone, byte for byte, and every step is logged once), `sigterm_s` (from the signal to the end of the
process), `sigterm_steps_lost`, and `start_s` (of a life, to its fifth step). Exits with 1 if a drill failed.
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

_DATA_DIR = flags.DEFINE_string("data_dir", "outputs/data", "Root of the datasets; holds synthetic_talk.")
_KILLS = flags.DEFINE_integer("kills", 20, "How often to kill.")
_NUM_STEPS = flags.DEFINE_integer("num_steps", 250, "Length of the run.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")

_CHECKPOINT_EVERY_STEPS = 3
_PREEMPTION_S = 30  # that a cloud leaves between SIGTERM and SIGKILL
_STUCK_S = 120


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
    """One process that trains, forked from one that has imported everything."""

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
        with os.scandir(self._checkpoints) as entries:  # a later life may give a name again
            return {(entry.name, entry.inode()) for entry in entries if "orbax-checkpoint-tmp" in entry.name}

    def is_saving(self) -> bool:
        """An unfinished checkpoint lies there that this life has begun."""
        return bool(self._temporary() - self._unfinished)

    def logged(self) -> list[int]:
        """Steps in metrics.jsonl that are written to their ends."""
        text = self._metrics.read_text() if self._metrics.exists() else ""
        return [int(step) for step in re.findall(r'^{"step": (\d+),.*}$', text, re.MULTILINE)]

    def last_step(self) -> int:
        """The last step that is logged."""
        return max(self.logged(), default=0)

    def saved_step(self) -> int:
        """The newest checkpoint."""
        return max((int(path.name) for path in self._checkpoints.glob("*") if path.name.isdigit()), default=0)

    def beginnings(self) -> list[int]:
        """Where lives began, those that got as far as their event file, in order of time."""
        files = sorted(self.workdir.glob("events.out.tfevents.*"), key=lambda path: path.stat().st_ctime_ns)
        return [int(path.suffix[1:]) for path in files]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until the condition holds."""
        end = time.monotonic() + _STUCK_S
        while not condition():
            if not self.process.is_alive() or time.monotonic() > end:
                sys.exit(f"{self.workdir}: the run ended or is stuck at step {self.last_step()}")
            time.sleep(0.002)


def _wait_for_moment(kind: str, life: _Life, rng: random.Random, start_s: float) -> None:
    if kind == "start":
        time.sleep(rng.uniform(0, start_s))
        return
    num_files = len(life.beginnings())
    life.wait(lambda: len(life.beginnings()) > num_files)  # rows that will be taken again are gone now
    if kind == "save":
        life.wait(life.is_saving)
    else:
        goal = life.last_step() + rng.randint(1, 10)
        life.wait(lambda: life.last_step() >= goal)
    time.sleep(rng.uniform(0, 0.05))


def _kill_often(workdir: Path, start_s: float) -> dict[str, int | bool]:
    """Kills and restarts, then lets the run end."""
    rng = random.Random(_SEED.value)
    during_save = most_lost = saved = 0
    went_on = True
    for number, kind in zip(
        range(1, _KILLS.value + 1), itertools.cycle(("start", "step", "save", "save", "step")), strict=False
    ):
        life = _Life(workdir)
        before = len(life.beginnings())
        _wait_for_moment(kind, life, rng, start_s)
        life.process.kill()
        life.process.join()
        went_on &= all(step == saved for step in life.beginnings()[before:])
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
        "went_on_at_last_save": went_on,
        "bit_exact": complete and life.process.exitcode == 0,
    }


def _terminate(workdir: Path) -> dict[str, float]:
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
        _Life(alone).process.join()  # fills the compilation cache too
        result = _terminate(terminated)
        result |= _kill_often(killed, result["start_s"])
        result["bit_exact"] = result["bit_exact"] and _weights(alone) == _weights(killed)
    print(json.dumps(result))
    killed_well = result["bit_exact"] and result["went_on_at_last_save"]
    few_lost = result["most_steps_lost"] <= 2 * _CHECKPOINT_EVERY_STEPS
    terminated_well = result["sigterm_s"] < _PREEMPTION_S and not result["sigterm_steps_lost"]
    return int(not (killed_well and few_lost and terminated_well))


if __name__ == "__main__":
    run_tool(_drill)
