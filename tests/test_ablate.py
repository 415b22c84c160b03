"""The table of ablations: as a command on a tiny stage, and its parts."""

import csv
import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from data_pipeline.prepare import prepare
from deeptalk_jax.ablation import runs
from deeptalk_jax.ablation.hosts import share, this_host
from deeptalk_jax.ablation.plot import draw
from deeptalk_jax.ablation.results import Failure, Result, count_parameters, training_seconds
from deeptalk_jax.ablation.rows import Ablations, Run, plan
from deeptalk_jax.ablation.table import (
    MAIN_METRICS,
    best_rows,
    direction,
    long_form,
    markdown,
    summarise,
)
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages import run as stage_run
from deeptalk_jax.stages.registry import STAGES
from deeptalk_jax.training.loop import Interrupted

ROOT = Path(__file__).resolve().parent.parent

_CONFIG = """
from configs import fer
from configs.common import finish, parse_arg

ABLATIONS = {
    "broken": {"optimiser.schedule": "zigzag"},
    "no_augmentation": {"augmentation.sample_rate": 0.0},
    "as_it_is": {"model.num_classes": 8},
}

def get_config(arg=None):
    variant, ablation = parse_arg(arg, ABLATIONS)
    config = fer.get_config(f"variant={variant}").unlock()
    config.update_from_flattened_dict({
        "model.hidden_dims": (9, 7), "model.feature_layer": 1, "model.dropout_rate": 0.0, "num_devices": 1,
        "num_steps": 4, "log_every_steps": 1,
        "checkpoint_every_steps": 1, "data.data_dir": DATA_DIR, "data.window_frames": 4, "data.batch_size": 8,
        "data.num_threads": 0, "data.max_clip_frames": 80, "data.eval_batch_size": 2,
    })
    return finish(config, ABLATIONS, ablation)
"""
# Runs the command once for every line of flags, each in a fork: the imports are paid for once.
_SERVER = """
import json, os, runpy, sys
import deeptalk_jax.ablation.report, deeptalk_jax.ablation.runs
for line in sys.stdin:
    child = os.fork()
    if not child:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{sys.argv[1]}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["ablate", *json.loads(line)]
        try:
            runpy.run_module("deeptalk_jax.ablate", run_name="__main__")
        except SystemExit as end:
            sys.stdout.flush()
            os._exit(end.code)  # taking the interpreter down takes longer than most commands
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ablated")
    prepare("synthetic_talk", str(directory / "data"), num_clips=16, num_workers=1, num_shards=1)
    path = directory / "tiny.py"
    path.write_text(_CONFIG.replace("DATA_DIR", repr(str(directory / "data"))))
    return path


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """`(*flags) -> (exit status, stdout, stderr)` of the command."""
    directory = tmp_path_factory.mktemp("streams")
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def call(*flags):
        server.stdin.write(json.dumps(list(map(str, flags))) + "\n")
        server.stdin.flush()
        status = int(server.stdout.readline())
        return status, *((directory / name).read_text() for name in ("stdout", "stderr"))

    yield call
    server.stdin.close()
    server.wait()


@pytest.fixture(scope="module")
def table(command, config_file, tmp_path_factory):
    """Work directory of two rows with two seeds, one of which fails; its flags; and how the command ended."""
    workdir = tmp_path_factory.mktemp("table")
    flags = (f"--config={config_file}", f"--workdir={workdir}", "--config.num_steps=2", "--config.seed=5")
    return workdir, flags, command(*flags, "--rows=broken,none", "--seeds=2")


def runs_of(workdir):
    """`(row, seed, frame_accuracy)` of the CSV, each held against the files of its run."""
    rows = []
    for row in csv.DictReader((workdir / "ablation.csv").open()):
        run = workdir / "rows" / row["row"] / f"seed_{row['seed']}"
        assert (
            float(row["frame_accuracy"]) == json.loads((run / "metrics.json").read_text())["frame_accuracy"]
        )
        assert float(row["train_s"]) > 0
        rows.append((row["row"], int(row["seed"])))
    return rows


def stamps(workdir):
    return {path: path.stat().st_mtime_ns for path in workdir.glob("rows/*/*/model/*")}


def test_rows_are_trained_evaluated_and_tabled_though_one_fails(table):
    workdir, _, (status, out, err) = table
    assert status == 1
    reason = "ValueError: schedule='zigzag'"
    assert f"\nfailed: broken, seed 5: {reason}" in err
    assert f"\nfailed: broken, seed 6: {reason}" in err
    assert "[1/4] broken, seed 5; 3 left after it\n" in err
    assert re.search(r"^\[4/4\] none, seed 6; 0 left after it, about .+ to go$", err, re.M)
    assert out == f"table: {workdir / 'ablation.md'}\n"
    assert runs_of(workdir) == [("none", 5), ("none", 6)]
    for row, seed, schedule in (("none", 6, "cosine"), ("broken", 5, "zigzag")):
        config = json.loads((workdir / "rows" / row / f"seed_{seed}" / "config.json").read_text())
        assert (config["ablation"], config["seed"], config["num_steps"]) == (row, seed, 2)
        assert config["optimiser"]["schedule"] == schedule
    text = (workdir / "ablation.md").read_text()
    assert re.search(r"^\| `none` \| 2 \| .* ± ", text, re.M)
    assert "\n- `broken`: `optimiser.schedule=zigzag`\n" in text
    assert f"\n- `broken`, seed 5: {reason}" in text
    assert "Traceback" in (workdir / "rows" / "broken" / "seed_5" / "failure.txt").read_text()
    assert (workdir / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_only_what_is_missing_is_made_and_an_interrupted_run_goes_on(table, command):
    workdir, flags, _ = table
    cut = workdir / "rows" / "none" / "seed_5"
    for name in ("model/model.json", "model/fer.safetensors", "metrics.json"):
        (cut / name).unlink()
    steps, before = (cut / "metrics.jsonl").read_text(), stamps(workdir)
    status, _, err = command(*flags, "--rows=none", "--seeds=2")
    assert status == 0
    assert "host 1 of 1: 2 of 2 runs, 1 finished\n[1/1] none, seed 5; 0 left after it\n" in err
    assert (cut / "metrics.jsonl").read_text() == steps, "a step was taken again"
    assert before.items() <= stamps(workdir).items()
    assert runs_of(workdir) == [("none", 5), ("none", 6)]
    before, page = stamps(workdir), (workdir / "ablation.md").read_text()
    for more, told in (
        ((), "host 1 of 1: 2 of 2 runs, 2 finished"),
        (("--num_hosts=2", "--host_index=1"), "host 2 of 2: 1 of 2 runs, 1 finished"),
        (("--table_only",), ""),
    ):
        (workdir / "ablation.md").unlink()
        status, _, err = command(*flags, "--rows=none", "--seeds=2", *more)
        assert (status, stamps(workdir)) == (0, before)
        assert told in err
        assert (workdir / "ablation.md").read_text() == page


def test_another_config_or_metric_is_refused(table, command):
    workdir, flags, _ = table
    status, _, err = command(*flags, "--config.optimiser.learning_rate=0.5")
    assert status == 2
    assert (
        f"{workdir / 'rows' / 'none' / 'seed_5'} was begun with another config (differs in: optimiser)" in err
    )
    status, _, err = command(*flags, "--metrics=clip_accuracy,beauty", "--table_only")
    assert status == 2
    assert (
        "--metrics: unknown metric 'beauty'; there are: frame_accuracy, class_mean_accuracy, clip_acc" in err
    )


def test_list(command, config_file):
    status, out, _ = command(f"--config={config_file}", "--list")
    assert status == 0
    assert out.splitlines() == [
        "none",
        "broken           optimiser.schedule='zigzag'",
        "no_augmentation  augmentation.sample_rate=0.0",
        "as_it_is         model.num_classes=8 (as the config has it anyway)",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--rows=none,brokn"],
            "--rows: unknown row 'brokn'; there are: none, broken, no_augmentation, as_it_is",
        ),
        (["--seeds=0"], "flag --seeds=0: 0 is not a positive integer"),
        ([], "--workdir is not given"),
        (["--workdir=FILE/table"], "--workdir=FILE/table: cannot be written (Not a directory)"),
        (
            ["--config.augmentation.sample_rate=0.1"],
            "--config.augmentation.sample_rate would undo the row 'no_augmentation', which sets "
            "augmentation.sample_rate=0.0",
        ),
        (
            ["--config.augmentation={'noise_std': 1.0}"],
            "--config.augmentation would undo the row 'no_augmentation'",
        ),
        (["--config.ablation=broken"], "choose with --rows"),
        (["--config=FILE:ablation=broken"], "choose with --rows"),
        (["--workdir=X", "--num_hosts=2"], "--host_index and --num_hosts go together"),
        (["--workdir=X", "--distributed", "--num_hosts=2", "--host_index=0"], "leave out --host_index"),
        (
            ["--workdir=X", "--distributed"],
            "--distributed: no cluster is found (coordinator_address should be",
        ),
    ],
)
def test_wrong_flags(command, config_file, flags, message):
    flags = [flag.replace("FILE", str(config_file)) for flag in flags]
    status, _, err = command(f"--config={config_file}", *flags)
    assert (status, err.count("\n")) == (2, 1), err
    assert message.replace("FILE", str(config_file)) in err


def test_commands_of_the_documentation(command):
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "ablations.md").read_text(), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    assert len(lines) == 6
    for line in lines:
        python, module, name, *flags = shlex.split(line)
        assert (python, module, name) == (".venv/bin/python", "-m", "deeptalk_jax.ablate")
        status, out, err = command(*flags, "--list")
        assert (status, out[:4]) == (0, "none"), err


def test_a_config_without_ablations(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("def get_config(arg=None): ...\n")
    with pytest.raises(UserError, match="has no table ABLATIONS"):
        Ablations(path, "", {})
    with pytest.raises(UserError, match="no such Python file"):
        Ablations(tmp_path / "missing.py", "", {})


def test_every_stage_has_main_metrics():
    assert MAIN_METRICS.keys() == STAGES.keys()
    assert all(direction(name) for names in MAIN_METRICS.values() for name in names)


def test_summary_by_hand():
    several = summarise([1.0, 2.0, 4.0])
    assert several.mean == pytest.approx(7 / 3)
    # Squares of -4/3, -1/3, 5/3 add up to 42/9; over n - 1 = 2.
    assert several.deviation == pytest.approx((21 / 9) ** 0.5)
    assert str(several) == "2.333 ± 1.528"
    assert str(summarise([0.012345])) == "0.01235"
    assert str(summarise([200, 200])) == "200"
    assert str(summarise([1234.56, 1234.56])) == "1235 ± 0"
    assert str(summarise([0.0, 0.5])) == "0.2500 ± 0.3536"
    assert str(summarise([float("nan")])) == "nan"


def test_best_rows():
    means = {"a": 1.0, "b": 3.0, "c": 3.0, "d": float("nan")}
    assert best_rows(means, 1) == {"b", "c"}
    assert best_rows(means, -1) == {"a"}
    assert best_rows(means, 0) == set()
    assert best_rows({"a": 1.0, "b": 1.0}, 1) == set()
    assert [direction(name) for name in ("lip_error_mm", "clip_mean_error_mm", "used_top", "beauty")] == [
        -1,
        0,
        1,
        0,
    ]


def made_up(row, seed, **metrics):
    return Result(Run(row, seed), metrics, 1000 + len(row), 1.5 + seed)


RESULTS = [
    made_up("none", 0, lip_error_mm=2.0, used_top=0.5),
    made_up("none", 1, lip_error_mm=3.0, used_top=0.7),
    made_up("one_level", 0, lip_error_mm=2.25, other=7),
]


def test_markdown_and_csv():
    lines = markdown(
        "Title", RESULTS, [Failure(Run("x", 3), "no luck")], {key: {} for key in ("none", "one_level", "x")}
    )
    lines = lines.splitlines()
    assert lines[4] == "| row | seeds | lip_error_mm ↓ | used_top ↑ | other | parameters | training, s |"
    assert lines[6] == "| `none` | 2 | 2.500 ± 0.707 | 0.6000 ± 0.1414 | – | 1,004 | 2.000 ± 0.707 |"
    assert lines[7] == "| `one_level` | 1 | **2.250** | – | 7 | 1,009 | 1.500 |"
    assert lines[-1] == "- `x`, seed 3: no luck"
    assert long_form(RESULTS).splitlines() == [
        "row,seed,parameters,train_s,lip_error_mm,used_top,other",
        "none,0,1004,1.5,2.0,0.5,",
        "none,1,1004,2.5,3.0,0.7,",
        "one_level,0,1009,1.5,2.25,,7",
    ]


def test_picture_copes_with_rows_that_lack_a_metric():
    assert draw(RESULTS, ["lip_error_mm", "used_top"], "a title").startswith(b"\x89PNG")


def test_training_seconds_count_a_repeated_step_once(tmp_path):
    rates = [
        (20, 10.0),
        (40, 5.0),
        (40, 4.0),
        (45, 5.0),
    ]
    rows = [{"step": step, "train/steps_per_s": rate} for step, rate in rates]
    rows.insert(1, {"step": 30, "eval/loss": 1.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert training_seconds(tmp_path) == pytest.approx(20 / 10 + 20 / 4 + 5 / 5)
    with pytest.raises(UserError, match="cannot be read"):
        training_seconds(tmp_path / "nothing")


def test_parameters_are_those_of_the_model(table):
    workdir, _, _ = table
    dims = (53, 9, 7)
    hidden = sum(before * after + after + 2 * after for before, after in itertools.pairwise(dims))
    assert count_parameters(workdir / "rows" / "none" / "seed_5" / "model", "fer") == hidden + 7 * 8 + 8


@pytest.mark.parametrize("num_hosts", [1, 2, 3, 20])
def test_hosts_share_every_run_once(num_hosts):
    every = plan(["none", "a", "b", "c"], range(3, 6))
    assert len(set(every)) == 12
    assert every[:4] == [Run(name, 3) for name in ("none", "a", "b", "c")]
    shared = [share(every, index, num_hosts) for index in range(num_hosts)]
    assert sorted(run for part in shared for run in part) == sorted(every)
    assert max(map(len, shared)) - min(map(len, shared)) <= 1


def test_hosts_by_jax_distributed():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    code = "from deeptalk_jax.ablation.hosts import this_host; print(this_host(None, None, distributed=True))"
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
    assert [process.communicate(timeout=60)[0] for process in processes] == ["(0, 2)\n", "(1, 2)\n"]


def test_no_such_host():
    assert this_host(1, 2, distributed=False) == (1, 2)
    with pytest.raises(UserError, match="--host_index=2 is not one of --num_hosts=2, counted from 0"):
        this_host(2, 2, distributed=False)


class FakeProcess:
    """A process that ends at once, or at a signal, with some status."""

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


def test_a_killed_process_is_a_failed_run(monkeypatch, tmp_path, capsys):
    failed, written = execute_with(monkeypatch, tmp_path, FakeProcess(-9))
    assert (failed, written) == ([Run("none", 0)], [1])
    assert "none, seed 0 failed: its process ended with status -9" in capsys.readouterr().err


def test_an_interruption_reaches_the_run_and_ends_the_table(monkeypatch, tmp_path):
    process = FakeProcess(-15, alive=True)
    with pytest.raises(Interrupted, match="interrupted in none, seed 0; run again to go on"):
        execute_with(monkeypatch, tmp_path, process)
    assert not process._alive
    with pytest.raises(Interrupted):  # the training alone was told to stop
        execute_with(monkeypatch, tmp_path, FakeProcess(3))


def test_how_a_run_ends(monkeypatch, tmp_path, capsys):
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
    assert (tmp_path / "failure.txt").read_text().startswith("this process sees the devices of 4 hosts; ")


@pytest.mark.parametrize(("seconds", "text"), [(40.2, "40 s"), (720, "12 min"), (12_600, "3.5 h")])
def test_duration(seconds, text):
    assert runs.duration(seconds) == text
