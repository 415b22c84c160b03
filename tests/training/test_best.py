"""The best model by a validation metric: which one is kept, what survives a kill, and what a run exports."""

import json
import math
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.errors import ConfigError, Interrupted, UserError
from deeptalk_jax.evaluation.result import Evaluation
from deeptalk_jax.stages import run
from deeptalk_jax.stages.fer import FERStage
from deeptalk_jax.training.best import BestModel, Criterion, criterion_of

ERROR, ACCURACY = Criterion("lip_error_mm", "lower"), Criterion("frame_accuracy", "higher")
LIKE = {"params": {"w": jnp.zeros((3, 2))}}


def weights(number):
    return {"params": {"w": jnp.full((3, 2), float(number))}}


def offered(directory, criterion, values):
    """Offers weights of 1, 2, ... with these values; returns the step, its value and the weight that are kept."""
    with BestModel(directory, criterion) as best:
        for step, value in enumerate(values, 1):
            best.offer(step, {criterion.metric: value, "other": 0.0}, weights(step))
        return best.step, best.value, float(best.variables(LIKE)["params"]["w"][0, 0])


@pytest.mark.parametrize(
    ("criterion", "values", "step"),
    [
        (ERROR, [5.0, 4.0, 4.5], 2),
        (ACCURACY, [0.2, 0.7, 0.7], 2),  # of equal ones the first
        (ERROR, [math.nan, 6.0, math.nan], 2),
        (ACCURACY, [math.inf, 0.1], 2),
    ],
)
def test_the_best_step_is_kept_alone(tmp_path, criterion, values, step):
    assert offered(tmp_path / "best", criterion, values) == (step, values[step - 1], step)
    assert [path.name for path in (tmp_path / "best").iterdir()] == [str(step)]


def test_another_process_goes_on_with_the_best_so_far(tmp_path):
    offered(tmp_path, ERROR, [5.0, 4.0, 4.5])
    (tmp_path / "3.orbax-checkpoint-tmp").mkdir()  # of a process that was killed while it saved
    # Steps 1 and 2 are repeated, with rounding errors that make step 1 better; they were compared before.
    assert offered(tmp_path, ERROR, [3.9, 3.9, 4.2]) == (2, 4.0, 2)
    assert offered(tmp_path, ERROR, [5.0, 4.0, 3.0]) == (3, 3.0, 3)


def test_what_cannot_be_kept_or_read_is_one_line(tmp_path):
    with BestModel(tmp_path / "best", ERROR) as best:
        with pytest.raises(
            UserError, match=r"keep_best='lip_error_mm': the evaluation .* only loss, chance; name"
        ):
            best.offer(1, {"loss": 1.0, "chance": 0.1}, weights(1))
        best.offer(1, {"lip_error_mm": math.nan}, weights(1))
        with pytest.raises(UserError, match="no evaluation on the validation split gave a finite value"):
            best.variables(LIKE)
        best.offer(2, {"lip_error_mm": 1.0}, weights(2))
        shutil.rmtree(tmp_path / "best" / "2" / "variables")
        with pytest.raises(
            UserError, match=r"best/2: the best model cannot be read .*; remove .*best to keep"
        ):
            best.variables(LIKE)
    shutil.rmtree(tmp_path / "best" / "2" / "note")
    with pytest.raises(UserError, match=r"best/2: the best model cannot be read"):
        BestModel(tmp_path / "best", ERROR)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/best: a checkpoint cannot be written"):
        BestModel(tmp_path / "file" / "best", ERROR)


def test_criteria_are_the_main_metrics_of_the_stage():
    assert criterion_of("", {"ece": "lower"}) is None
    assert criterion_of("ece", {"ece": "lower"}) == Criterion("ece", "lower")
    with pytest.raises(
        ConfigError, match="keep_best='beauty': expected one of ece, frame_accuracy, or nothing"
    ):
        criterion_of("beauty", {"ece": "lower", "frame_accuracy": "higher"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"keep_best": "frame_accuracy", "eval_every_steps": 0},
            "keep_best='frame_accuracy': .* eval_every_steps",
        ),
        (
            {"keep_best": "lip_error_mm", "eval_every_steps": 1},
            "keep_best='lip_error_mm': expected one of frame_accuracy, class_mean_accuracy, clip_accuracy, or nothing",
        ),
        ({"ema_decay": 1.0}, "ema_decay=1.0: expected 0 .* or a number below 1"),
    ],
)
def test_values_that_cannot_be_used_leave_no_work_directory(tiny_config, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run.train(tiny_config("fer", **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Evaluations:
    """An evaluation of FER that returns given accuracies, and records which weights it was given.

    Args:
        accuracies: accuracy after 1, 2, ... steps.
    """

    def __init__(self, accuracies):
        self._accuracies = accuracies
        self.seen = []
        self.signal_at = None

    def evaluate(self, stage, variables, split):
        assert split == "validation"
        if len(self.seen) + 1 == self.signal_at:
            self.signal_at = None
            signal.raise_signal(signal.SIGTERM)
        self.seen.append(variables)
        return Evaluation({"frame_accuracy": self._accuracies[len(self.seen) - 1]}, {}, tuple)


@pytest.fixture
def evaluations(monkeypatch):
    """`accuracies -> Evaluations`, which replaces the evaluation of FER."""

    def make(*accuracies):
        made = Evaluations(accuracies)
        monkeypatch.setattr(FERStage, "evaluate", lambda *arguments: made.evaluate(*arguments))
        return made

    return make


@pytest.fixture(scope="module")
def plain(tiny_config, tmp_path_factory):
    """Work directory of a finished FER without an average; read-only."""
    workdir = tmp_path_factory.mktemp("plain") / "fer"
    run.train(tiny_config("fer"), workdir)
    return workdir


def exported(workdir):
    return load_part(workdir / "model", "fer").variables


def rows(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["eval/frame_accuracy"] for row in map(json.loads, lines) if len(row) == 2}


SETTINGS = {"keep_best": "frame_accuracy", "eval_every_steps": 1, "ema_decay": 0.9}


def test_a_run_exports_the_average_of_its_best_step(tiny_config, tmp_path, evaluations, capsys):
    found = evaluations(0.3, 0.9, 0.5, 0.5)
    run.train(tiny_config("fer", **SETTINGS), tmp_path, source="fer.py")
    jax.tree.map(np.testing.assert_array_equal, exported(tmp_path), found.seen[1])
    assert rows(tmp_path) == {1: 0.3, 2: 0.9, 3: 0.5, 4: 0.5}
    out = capsys.readouterr().out
    assert "  average  of the weights, decay 0.9: evaluated and exported\n" in out
    assert (
        "  best     frame_accuracy on the validation split, higher is better: this model is exported\n" in out
    )
    assert "fer: step 2 of 4 is exported, the best by frame_accuracy on the validation split, 0.9\n" in out
    (entry,) = json.loads((tmp_path / "run.json").read_text())
    assert entry["exported"] == {"step": 2, "frame_accuracy": 0.9}
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "4"]


def test_a_run_that_is_interrupted_in_evaluations_equals_one_that_is_not(
    tiny_config, tmp_path, evaluations, capsys
):
    """An evaluation that a signal has ended is done again, before the next step or the export."""
    config, accuracies = tiny_config("fer", **SETTINGS), (0.3, 0.5, 0.2, 0.9)
    whole = evaluations(*accuracies)
    run.train(config, tmp_path / "whole")
    cut = evaluations(*accuracies)
    for step in (2, 4):
        cut.signal_at = step
        with pytest.raises(Interrupted, match=f"SIGTERM: saved step {step}"):
            run.train(config, tmp_path / "cut")
    run.train(config, tmp_path / "cut", source="fer.py")
    assert "higher is better: this model is exported; so far 0.5 at step 2\n" in capsys.readouterr().out
    jax.tree.map(np.testing.assert_array_equal, exported(tmp_path / "cut"), exported(tmp_path / "whole"))
    jax.tree.map(np.testing.assert_array_equal, cut.seen, whole.seen)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    last = json.loads((tmp_path / "cut" / "run.json").read_text())[-1]
    assert last["exported"] == {"step": 4, "frame_accuracy": 0.9}


def test_the_average_changes_no_weight_of_a_run_and_is_evaluated_before_its_end(tiny_config, tmp_path, plain):
    """The last weights equal those of a run without an average; `eval.py` reads the average of a checkpoint."""
    config = tiny_config("fer", ema_decay=0.9)
    run.train(config, tmp_path / "run")
    found, last = exported(tmp_path / "run"), exported(plain)
    jax.tree.map(np.testing.assert_array_equal, found["batch_stats"], last["batch_stats"])
    kernels = [variables["params"]["dense_0"]["kernel"] for variables in (found, last)]
    assert not np.allclose(*kernels, rtol=1e-3)
    metrics = run.evaluate(config, tmp_path / "run", "test")
    shutil.rmtree(tmp_path / "run" / "model")
    again = run.evaluate(config, tmp_path / "run", "test")
    assert again.pop("step") == 4
    assert again == metrics
    with pytest.raises(UserError, match=r"differs in: ema_decay\)"):
        run.train(tiny_config("fer"), tmp_path / "run")


def test_work_directories_from_before_these_keys_are_resumed_and_evaluated(tiny_config, tmp_path, plain):
    shutil.copytree(plain, tmp_path / "fer")
    shutil.rmtree(tmp_path / "fer" / "model")
    stored = json.loads((tmp_path / "fer" / "config.json").read_text())
    del stored["ema_decay"], stored["keep_best"]
    (tmp_path / "fer" / "config.json").write_text(json.dumps(stored))
    assert run.evaluate(tiny_config("fer"), tmp_path / "fer", "test")["step"] == 4
    run.train(tiny_config("fer"), tmp_path / "fer")
    jax.tree.map(np.testing.assert_array_equal, exported(tmp_path / "fer"), exported(plain))
