"""A run says at its start what it is about to do, and `run.json` keeps where it came from."""

import json
import re

import pytest

from data_pipeline.records import describe_split, open_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.training.loop import fit

_WARM_UP = {"optimiser.schedule": "constant", "optimiser.warmup_steps": 2, "optimiser.learning_rate": 0.5}


def test_a_run_reports_its_plan_and_its_learning_rate(tiny_config, tmp_path, capsys):
    config = tiny_config("fer", num_steps=2, **_WARM_UP, **{"optimiser.frozen": ("dense_0/*",)})
    fit(make_stage(config), config, tmp_path / "run", source="configs/fer.py; changed: num_steps=2")
    head, *lines = capsys.readouterr().out.splitlines()
    report = dict(re.fullmatch(r"  (\w+) +(.*)", line).groups() for line in lines[:8])
    assert head == "stage fer"
    assert report["config"] == "configs/fer.py; changed: num_steps=2"
    assert report["frozen"] == f"{53 * 9 + 9} parameters: dense_0 {53 * 9 + 9}"
    assert "dense_1 110" in report["trained"]  # 9 x 11 weights and 11 biases
    assert report["devices"] == "1 x cpu, processes: 1, global batch: 8"
    assert re.search(r"synthetic_talk/clips64_seed0/1.4.0, train: 48 clips, about 0.0\d h$", report["data"])
    assert report["head"] == "procedural, basis embedded 1"  # FER uses no masks
    assert report["steps"] == "2"
    assert report["metrics"] == f"{tmp_path}/run/metrics.jsonl; tensorboard --logdir={tmp_path}/run"
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["train/learning_rate"] for row in rows] == [0, 0.25]


def test_each_start_is_appended_to_run_json(tiny_config, tmp_path, capsys):
    for num_steps in (1, 2):
        config = tiny_config("fer", num_steps=num_steps)
        fit(make_stage(config), config, tmp_path / "run", source="fer.py" if num_steps == 2 else "")
    assert "  steps    2, resuming at 1\n" in capsys.readouterr().out
    runs = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [(entry["first_step"], entry["config"]) for entry in runs] == [(0, ""), (1, "fer.py")]
    assert runs[0].keys() == {
        "date",
        "host",
        "command",
        "config",
        "first_step",
        "commit",
        "versions",
        "exported",
    }
    assert [entry["exported"] for entry in runs] == [{"step": 1}, {"step": 2}]
    assert {"jax", "flax", "deeptalk_jax"} <= runs[0]["versions"].keys()
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: cannot be read or written"):
        fit(make_stage(config), config, tmp_path / "run")


def test_the_length_of_a_split_is_right_to_two_percent(data_dir):
    clips = open_split(data_dir, "synthetic_talk", "train")
    hours = sum(len(clip.audio) for clip in clips) / 16_000 / 3600
    (said,) = re.findall(r"about (\S+) h", describe_split(data_dir, "synthetic_talk", "train"))
    assert float(said) == pytest.approx(hours, rel=0.02, abs=0.005)
