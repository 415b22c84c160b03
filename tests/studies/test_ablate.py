"""The ablation study: the command on a tiny stage, and its parts."""

import csv
import functools
import itertools
import json
import re
import shlex
from pathlib import Path

import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.studies.ablation.results import count_parameters
from deeptalk_jax.studies.ablation.rows import Ablations

ROOT = Path(__file__).resolve().parents[2]

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


@pytest.fixture(scope="module")
def config_file(data_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("ablated") / "tiny.py"
    path.write_text(_CONFIG.replace("DATA_DIR", repr(str(data_dir))))
    return path


@pytest.fixture(scope="module")
def command(commands):
    """A function `(*flags) -> (exit status, stdout, stderr)` that runs the command."""
    return functools.partial(commands.run, "deeptalk_jax.studies.ablation")


@pytest.fixture(scope="module")
def table(command, config_file, tmp_path_factory):
    """Work directory of a study of two rows and two seeds, where one row fails; its flags; output of the command."""
    workdir = tmp_path_factory.mktemp("table")
    flags = (f"--config={config_file}", f"--workdir={workdir}", "--config.num_steps=2", "--config.seed=5")
    return workdir, flags, command(*flags, "--rows=broken,none", "--seeds=2")


def runs_of(workdir):
    """Returns `(row, seed)` of the CSV file, after checking its numbers against the files of the runs."""
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


def test_other_rows_are_trained_and_tabulated_when_one_fails(table):
    workdir, _, (status, out, err) = table
    assert status == 1
    reason = "optimiser.schedule='zigzag': expected one of constant, cosine, step"
    assert f"\nfailed: broken, seed 5: {reason}" in err
    assert f"\nfailed: broken, seed 6: {reason}" in err
    assert "[1/4] broken, seed 5; 3 left after it\n" in err
    assert re.search(r"^\[4/4\] none, seed 6; 0 left after it, about .+ to go$", err, re.M)
    assert out == f"table: {workdir / 'ablation.md'}\n"
    assert runs_of(workdir) == [("none", 5), ("none", 6)]
    config = json.loads((workdir / "rows" / "none" / "seed_6" / "config.json").read_text())
    assert (config["ablation"], config["seed"], config["num_steps"]) == ("none", 6, 2)
    assert config["optimiser"]["schedule"] == "cosine"
    assert not (workdir / "rows" / "broken" / "seed_5" / "config.json").exists()  # the run had not started
    text = (workdir / "ablation.md").read_text()
    assert re.search(r"^\| `none` \| 2 \| .* ± ", text, re.M)
    assert "\n- `broken`: `optimiser.schedule=zigzag`\n" in text
    assert f"\n- `broken`, seed 5: {reason}" in text
    assert "Traceback" in (workdir / "rows" / "broken" / "seed_5" / "failure.txt").read_text()
    assert (workdir / "ablation.png").read_bytes().startswith(b"\x89PNG")


def test_finished_runs_are_kept_and_an_interrupted_run_resumes(table, command):
    workdir, flags, _ = table
    cut = workdir / "rows" / "none" / "seed_5"
    for name in ("model/model.json", "model/fer.safetensors", "metrics.json"):
        (cut / name).unlink()
    steps, before = (cut / "metrics.jsonl").read_text(), stamps(workdir)
    status, _, err = command(*flags, "--rows=none", "--seeds=2")
    assert status == 0
    assert "host 1 of 1: 2 of 2 runs, 1 finished\n[1/1] none, seed 5; 0 left after it\n" in err
    assert (cut / "metrics.jsonl").read_text() == steps, "a step was repeated"
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


def test_changed_config_and_unknown_metric_are_rejected(table, command):
    workdir, flags, _ = table
    status, _, err = command(*flags, "--config.optimiser.learning_rate=0.5")
    assert status == 2
    run = workdir / "rows" / "none" / "seed_5"
    assert f"{run} was begun with another config (differs in: optimiser.learning_rate)" in err
    status, _, err = command(*flags, "--metrics=clip_accuracy,beauty", "--table_only")
    assert status == 2
    assert (
        "--metrics: unknown metric 'beauty'; there are: frame_accuracy, class_mean_accuracy, clip_acc" in err
    )


def test_list_prints_the_changes_of_each_row(command, config_file):
    status, out, _ = command(f"--config={config_file}", "--list")
    assert status == 0
    assert out.splitlines() == [
        "none",
        "broken           optimiser.schedule='zigzag'",
        "no_augmentation  augmentation.sample_rate=0.0",
        "as_it_is         model.num_classes=8 (same as the config without ablation)",
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
def test_wrong_flags_are_one_line(command, config_file, flags, message):
    flags = [flag.replace("FILE", str(config_file)) for flag in flags]
    status, _, err = command(f"--config={config_file}", *flags)
    assert (status, err.count("\n")) == (2, 1), err
    assert message.replace("FILE", str(config_file)) in err


def test_commands_in_the_documentation_are_valid(command):
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "ablations.md").read_text(), re.M | re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    assert len(lines) == 7
    for line in lines:
        python, module, name, *flags = shlex.split(line)
        assert (python, module, name) == (".venv/bin/python", "-m", "deeptalk_jax.studies.ablation")
        status, out, err = command(*flags, "--list")
        assert (status, out[:4]) == (0, "none"), err


def test_config_without_ablations_is_rejected(tmp_path):
    path = tmp_path / "plain.py"
    path.write_text("def get_config(arg=None): ...\n")
    with pytest.raises(UserError, match="the file has no table ABLATIONS"):
        Ablations(path, "", {})
    with pytest.raises(UserError, match="no such Python file"):
        Ablations(tmp_path / "missing.py", "", {})


def test_parameter_count_by_hand(table):
    workdir, _, _ = table
    dims = (53, 9, 7)
    hidden = sum(before * after + after + 2 * after for before, after in itertools.pairwise(dims))
    assert count_parameters(workdir / "rows" / "none" / "seed_5" / "model", "fer") == hidden + 7 * 8 + 8
