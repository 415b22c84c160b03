"""Numbers, table and chart of an ablation study, checked by hand."""

import json

import pytest

from deeptalk_jax.assembly.stage_table import STAGES
from deeptalk_jax.errors import UserError
from deeptalk_jax.studies.ablation.plot import draw
from deeptalk_jax.studies.ablation.results import Failure, Result, training_seconds
from deeptalk_jax.studies.ablation.rows import Run
from deeptalk_jax.studies.ablation.table import (
    best_rows,
    direction,
    long_form,
    markdown,
    summarise,
)


def test_directions_of_the_main_metrics_agree_with_the_stage_table():
    signs = {"higher": 1, "lower": -1}
    for row in STAGES.values():
        assert row.main_metrics, row.name
        assert {name: direction(name) for name in row.main_metrics} == {
            name: signs[better] for name, better in row.main_metrics.items()
        }


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


def test_best_rows_by_hand():
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


def made_up_result(row, seed, **metrics):
    return Result(Run(row, seed), metrics, 1000 + len(row), 1.5 + seed)


RESULTS = [
    made_up_result("none", 0, lip_error_mm=2.0, used_top=0.5),
    made_up_result("none", 1, lip_error_mm=3.0, used_top=0.7),
    made_up_result("one_level", 0, lip_error_mm=2.25, other=7),
]


def test_markdown_and_csv_by_hand():
    lines = markdown(
        "Title",
        RESULTS,
        [Failure(Run("x", 3), "out of memory")],
        {key: {} for key in ("none", "one_level", "x")},
    )
    lines = lines.splitlines()
    assert lines[4] == "| row | seeds | lip_error_mm ↓ | used_top ↑ | other | parameters | training, s |"
    assert lines[6] == "| `none` | 2 | 2.500 ± 0.707 | 0.6000 ± 0.1414 | – | 1,004 | 2.000 ± 0.707 |"
    assert lines[7] == "| `one_level` | 1 | **2.250** | – | 7 | 1,009 | 1.500 |"
    assert lines[-1] == "- `x`, seed 3: out of memory"
    assert long_form(RESULTS).splitlines() == [
        "row,seed,parameters,train_s,lip_error_mm,used_top,other",
        "none,0,1004,1.5,2.0,0.5,",
        "none,1,1004,2.5,3.0,0.7,",
        "one_level,0,1009,1.5,2.25,,7",
    ]


def test_chart_accepts_rows_without_a_metric():
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
