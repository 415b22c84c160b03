"""Runs of two real processes with two devices each: signals, a killed process, and resuming with other numbers."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from deeptalk_jax.cli import EXIT_INTERRUPTED
from deeptalk_jax.errors import Interrupted, LostProcess, UserError
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.training import processes
from deeptalk_jax.training.loop import fit
from deeptalk_jax.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("train_process.py")
NOTICED_S = 60  # the other process must stop within this time
# End of a process that lost the other one: our error, or that of JAX if its heartbeat is faster.
_LOST = "another process has ended|another task died"


@pytest.fixture
def config(tiny_config):
    return tiny_config(
        "fer",
        num_steps=8,
        num_devices=0,
        log_every_steps=2,
        validate_every_steps=2,
        eval_every_steps=2,
        keep_best="frame_accuracy",
        ema_decay=0.9,
    )


@pytest.fixture
def start(config, tmp_path):
    """Returns `(workdir, signal, step) -> processes`, which starts two processes; the second gets the signal."""
    started = []

    def begin(workdir, number, step):
        (tmp_path / "config.json").write_text(config.to_json_best_effort())
        with socket.socket() as free:
            free.bind(("localhost", 0))
            coordinator = f"localhost:{free.getsockname()[1]}"
        devices = re.sub(r"device_count=\d+", "device_count=2", os.environ["XLA_FLAGS"])
        environment = os.environ | {"XLA_FLAGS": devices, "PYTHONPATH": str(ROOT)}
        for index in range(2):
            when = [str(int(number)), str(step)] if index == 1 else []
            command = [sys.executable, WORKER, tmp_path / "config.json", workdir, coordinator, str(index)]
            started.append(
                subprocess.Popen(
                    [*command, *when], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
                )
            )
        return started

    yield begin
    for process in started:
        process.kill()
        process.wait()


def variables(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def run(config, workdir, num_devices, stop_at=None):
    """Trains in this process, to the end or to a signal after step `stop_at`."""
    config = config.copy_and_resolve_references().unlock()
    config.num_devices = num_devices
    taken = Trainer.next_step

    def next_step(self):
        metrics = taken(self)
        if self.step == stop_at:
            signal.raise_signal(signal.SIGTERM)
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "next_step", next_step)
        return variables(fit(make_stage(config), config.lock(), workdir))


def saved_steps(workdir, directory="checkpoints"):
    return sorted(int(path.name) for path in (workdir / directory).iterdir() if path.name.isdigit())


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_processes_stop_together_and_other_numbers_of_processes_resume(config, start, tmp_path):
    """2 x 2 devices, then 1 x 4, then 1 x 1 give the same parameters as one run on one device."""
    workdir = tmp_path / "run"
    ended = [
        (process.communicate(timeout=200)[1], process.returncode)
        for process in start(workdir, signal.SIGTERM, 3)
    ]
    for (said, status), reason in zip(ended, ("another process was signalled", "SIGTERM"), strict=True):
        assert status == EXIT_INTERRUPTED, said
        assert f"{reason}: saved step 4 in {workdir}/checkpoints" in said  # where they log next
    assert saved_steps(workdir)[-1] == 4
    rows = (workdir / "metrics.jsonl").read_text().splitlines()
    kinds = [(row["step"], list(row)[1].partition("/")[0]) for row in map(json.loads, rows)]
    # Once, by the first process; step 4 is evaluated by the run that resumes.
    assert kinds == [(2, "train"), (2, "validation"), (2, "eval"), (4, "train")]
    assert saved_steps(workdir, "best") == [2]
    with pytest.raises(Interrupted, match="SIGTERM: saved step 6"):
        run(config, workdir, 4, stop_at=6)
    assert_same(run(config, workdir, 1), run(config, tmp_path / "alone", 1))


def test_the_other_process_stops_when_one_is_killed(config, start, tmp_path):
    workdir = tmp_path / "run"
    first, second = start(workdir, signal.SIGKILL, 5)
    assert second.wait(timeout=200) == -signal.SIGKILL
    since = time.monotonic()
    said = first.communicate(timeout=120)[1]
    assert time.monotonic() - since < NOTICED_S
    assert first.returncode not in (0, None)
    assert re.search(_LOST, said), said
    assert saved_steps(workdir)[-1] in (2, 4)  # checkpoint 4 may be incomplete
    assert_same(run(config, workdir, 4), run(config, tmp_path / "alone", 1))


def test_errors_of_a_lost_process_are_recognised(monkeypatch):
    failed = jax.errors.JaxRuntimeError("UNAVAILABLE: Connection closed by peer\nmore")
    with pytest.raises(jax.errors.JaxRuntimeError), processes.watching_others():  # there is no other
        raise failed
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with (
        pytest.raises(LostProcess, match=r"process 0 stopped.*\(UNAVAILABLE: Connection closed by peer\);"),
        processes.watching_others(),
    ):
        raise failed
    with pytest.raises(jax.errors.JaxRuntimeError), processes.watching_others():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


def test_unusable_process_settings_are_refused(monkeypatch):
    with pytest.raises(UserError, match="go together; missing: --num_processes"):
        processes.join_processes("localhost:1", None, 0)

    def refuse(*args, **kwargs):
        raise ValueError("coordinator_address should be defined.\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    with pytest.raises(
        UserError, match=r"cannot join the other processes \(coordinator_address should be def"
    ):
        processes.join_processes(None, None, None)
