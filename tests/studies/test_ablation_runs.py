"""Division of the runs of an ablation study among hosts, and their exit states."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from deeptalk_jax.errors import Interrupted, UserError
from deeptalk_jax.stages import run as stage_run
from deeptalk_jax.studies.ablation import runs
from deeptalk_jax.studies.ablation.hosts import share, this_host
from deeptalk_jax.studies.ablation.rows import Run, plan

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("num_hosts", [1, 2, 3, 20])
def test_each_run_belongs_to_one_host(num_hosts):
    every = plan(["none", "a", "b", "c"], range(3, 6))
    assert len(set(every)) == 12
    assert every[:4] == [Run(name, 3) for name in ("none", "a", "b", "c")]
    shared = [share(every, index, num_hosts) for index in range(num_hosts)]
    assert sorted(run for part in shared for run in part) == sorted(every)
    assert max(map(len, shared)) - min(map(len, shared)) <= 1


def test_jax_distributed_numbers_the_hosts():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = "from deeptalk_jax.studies.ablation.hosts import this_host; print(this_host(None, None, distributed=True))"
    slurm = {
        "SLURM_JOB_ID": "1",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_LOCALID": "0",
    }
    slurm |= {"SLURM_STEP_NUM_NODES": "2", "JAX_COORDINATOR_ADDRESS": f"localhost:{port}"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | slurm | {"SLURM_PROCID": str(index)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    assert [process.communicate(timeout=240)[0] for process in processes] == ["(0, 2)\n", "(1, 2)\n"]


def test_host_index_out_of_range_is_rejected():
    assert this_host(1, 2, distributed=False) == (1, 2)
    with pytest.raises(UserError, match="--host_index=2 is not one of --num_hosts=2, counted from 0"):
        this_host(2, 2, distributed=False)


class FakeProcess:
    """A process that exits with the given status, at once or at a signal."""

    def __init__(self, status, *, alive=False):
        self.exitcode, self._alive = status, alive

    def start(self): ...

    def join(self, timeout=None): ...

    def is_alive(self):
        if self._alive:
            signal.raise_signal(signal.SIGTERM)
        return self._alive

    def terminate(self):
        self._alive = False


def execute_with(monkeypatch, tmp_path, process):
    context = SimpleNamespace(set_forkserver_preload=lambda names: None, Process=lambda **_: process)
    monkeypatch.setattr(runs.multiprocessing, "get_context", lambda kind: context)
    written = []
    failed = runs.execute([Run("none", 0)], lambda run: None, tmp_path, "test", lambda: written.append(1))
    return failed, written


def test_killed_process_counts_as_a_failed_run(monkeypatch, tmp_path, capsys):
    failed, written = execute_with(monkeypatch, tmp_path, FakeProcess(-9))
    assert (failed, written) == ([Run("none", 0)], [1])
    assert "none, seed 0 failed: its process ended with status -9" in capsys.readouterr().err


def test_interruption_stops_the_run_and_the_study(monkeypatch, tmp_path):
    process = FakeProcess(-15, alive=True)
    with pytest.raises(
        Interrupted, match="interrupted in none, seed 0; run the same command again to resume"
    ):
        execute_with(monkeypatch, tmp_path, process)
    assert not process._alive
    with pytest.raises(Interrupted):  # only the training process was signalled
        execute_with(monkeypatch, tmp_path, FakeProcess(3))


def test_exit_states_of_a_run(monkeypatch, tmp_path, capsys):
    def interrupted(config, workdir):
        raise Interrupted("SIGTERM: saved step 2")

    monkeypatch.setattr(stage_run, "train", interrupted)
    with pytest.raises(SystemExit, match="3"):
        runs._train_and_evaluate(None, tmp_path, "test")
    assert "saved step 2" in capsys.readouterr().err
    assert not (tmp_path / "failure.txt").exists()
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(SystemExit, match="1"):
        runs._train_and_evaluate(None, tmp_path, "test")
    assert (tmp_path / "failure.txt").read_text().startswith("this process uses the devices of 4 hosts; ")


@pytest.mark.parametrize(("seconds", "text"), [(40.2, "40 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_duration_is_formatted_with_a_unit(seconds, text):
    assert runs.duration(seconds) == text
