"""`eval.py` needs only the work directory, and evaluates unfinished runs, too."""

import json
import shutil

import pytest

from deeptalk_jax.assembly.model_dir import read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import EMBEDDED, Basis
from deeptalk_jax.stages import run


@pytest.fixture(scope="module")
def finished(tiny_config, tmp_path_factory):
    """Work directory of a finished FER."""
    workdir = tmp_path_factory.mktemp("finished") / "fer"
    run.train(tiny_config("fer"), workdir)
    return workdir


def test_config_and_data_come_from_the_run_unless_flags_change_them(finished, commands, tiny_config):
    done = commands.run("eval.py", f"--workdir={finished}")
    assert done.status == 0, done.stderr
    metrics = json.loads((finished / "metrics.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1]) == metrics
    assert metrics == run.evaluate(tiny_config("fer"), finished, "test")
    done = commands.run("eval.py", "--workdir", finished, "--split=validation", "--config.data.eval_clips=2")
    assert done.status == 0, done.stderr
    validation = json.loads((finished / "metrics_validation.json").read_text())
    assert validation == run.evaluate(tiny_config("fer", **{"data.eval_clips": 2}), finished, "validation")
    assert json.loads((finished / "metrics.json").read_text()) == metrics


def test_the_model_records_its_basis_and_refuses_data_of_another(finished, tiny_config, tmp_path):
    shutil.copytree(finished / "model", tmp_path / "model")
    index = read_index(finished / "model")
    assert index["basis"] == EMBEDDED.record()
    index["basis"] = Basis("flame2023", sha256="a" * 64).record()
    (tmp_path / "model" / "model.json").write_text(json.dumps(index))
    with pytest.raises(
        UserError, match=r"^data set synthetic_talk in .* basis embedded 1, but the model .*flame2023"
    ):
        run.evaluate(tiny_config("fer"), tmp_path, "test")


def test_an_unfinished_run_is_evaluated_at_its_newest_checkpoint(finished, tiny_config, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "fer")
    shutil.rmtree(tmp_path / "fer" / "model")
    metrics = run.evaluate(tiny_config("fer"), tmp_path / "fer", "test")
    assert (
        f"{tmp_path / 'fer'} has no model yet: its checkpoint of step 4 is evaluated\n"
        in capsys.readouterr().out
    )
    assert metrics.pop("step") == 4
    assert metrics == run.evaluate(tiny_config("fer"), finished, "test")
    shutil.rmtree(tmp_path / "fer" / "checkpoints" / "4")
    assert run.evaluate(tiny_config("fer"), tmp_path / "fer", "test")["step"] == 2
    (tmp_path / "fer" / "checkpoints" / "2" / "state").rename(tmp_path / "state")
    with pytest.raises(UserError, match="checkpoints: no checkpoint can be read"):
        run.evaluate(tiny_config("fer"), tmp_path / "fer", "test")


def test_a_directory_without_a_run_is_named(commands, tmp_path):
    done = commands.run("eval.py", f"--workdir={tmp_path}")
    assert done.status == 2
    assert f"{tmp_path} is not the work directory of a run (it has no config.json)\n" in done.stderr
    assert done.stderr.count("\n") == 1


def test_overrides_of_the_config_may_come_from_a_flagfile(commands, tmp_path):
    (tmp_path / "flags").write_text("--config=configs/fer.py\n--config.num_steps=0\n")
    done = commands.run("train.py", f"--workdir={tmp_path / 'run'}", f"--flagfile={tmp_path / 'flags'}")
    assert (done.status, done.stderr) == (2, "error: num_steps=0: expected 1 or more\n")
