"""The frame of the command-line tools: wrong flags end in one line that names the flag, help ends with status 0."""

from importlib import metadata

import pytest

import deeptalk_jax
from tests.support.commands import run_command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config=configs/fer.py:ablation=all"],
            "error: flag --config=configs/fer.py:ablation=all: unknown ablation 'all'; there are: none, ",
        ),
        (
            ["--config=configs/gone.py:variant=mini"],
            "error: flag --config=configs/gone.py:variant=mini: there is no file configs/gone.py\n",
        ),
        (
            ["--config", "configs/fer.py", "--config.model.size=3"],
            "error: --config.model.size=3: the config has no key 'size' there; expected one of: ",
        ),
        (
            ["--config=configs/fer.py", "--config.models.dtype=float32"],
            "error: --config.models.dtype=float32: the config has no key 'models' there; did you mean 'model'?\n",
        ),
        (
            ["--config=configs/fer.py", "--config.seed.x=3"],
            "error: --config.seed.x=3: the config has no key 'x' there; expected one of: none\n",
        ),
        (
            ["--config=configs/fer.py", "--config.num_steps=many"],
            "error: flag --config.num_steps=many: invalid literal",
        ),
        (
            ["--config=configs/fer.py", "--config.optimiser.frozen=(1,"],
            "error: flag --config.optimiser.frozen=(1,: Error while parsing",
        ),
    ],
)
def test_wrong_flags_end_in_one_line(commands, tmp_path, flags, message):
    done = commands.run("train.py", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.status == 2
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture
def run_tool(tmp_path):
    """Returns `body -> finished process`, which runs a tool that evaluates one expression and has a config flag."""

    def run(body):
        tool = tmp_path / "tool.py"
        tool.write_text(
            "from ml_collections import config_flags\n"
            "from deeptalk_jax.cli import run_tool\n"
            "from deeptalk_jax.errors import UserError\n"
            "config = config_flags.DEFINE_config_file('config', None, 'Optional.')\n"
            "def fail(error):\n"
            "    raise error\n"
            f"run_tool(lambda: {body})\n"
        )
        return run_command(tool)

    return run


def test_a_tool_with_a_config_flag_runs_without_a_config(run_tool):
    done = run_tool("print('config:', config.value)")
    assert done == (0, "config: None\n", "")


def test_user_errors_are_one_line_and_bugs_keep_their_traceback(run_tool):
    done = run_tool("fail(UserError('x.wav: no sound'))")
    assert done == (2, "", "error: x.wav: no sound\n")
    done = run_tool("fail(ValueError('not for users'))")
    assert done.status == 1
    assert done.stderr.startswith("Traceback (most recent call last)")


@pytest.mark.parametrize("word", ["--help", "-h", "--helpshort", "--helpfull"])
def test_help_lists_the_flags_and_succeeds(commands, word):
    done = commands.run("train.py", word)
    assert done.status == 0
    assert "--workdir: Directory for the config, metrics, checkpoints" in done.stdout


def test_version_is_that_of_the_package(commands):
    assert commands.run("infer.py", "--version") == (0, f"deeptalk_jax {deeptalk_jax.__version__}\n", "")
    assert deeptalk_jax.__version__[0].isdigit()


def test_version_without_installation_is_unknown(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert deeptalk_jax.__version__ == "0+unknown"
