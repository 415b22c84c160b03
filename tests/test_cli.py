"""Wrong flags of the tools: one line that names the flag and says what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
            ["--config=configs/fer.py", "--config.model.size=3"],
            "error: --config.model.size=3: the config has no key 'size'\n",
        ),
        (
            ["--config=configs/fer.py", "--config.models.dtype=float32"],
            "error: --config.models.dtype=float32: the config has no key 'models'; Did you mean \"model\" instead",
        ),
        (
            ["--config=configs/fer.py", "--config.num_steps=many"],
            "error: flag --config.num_steps=many: invalid literal",
        ),
    ],
)
def test_wrong_flags_are_one_line(tmp_path, flags, message):
    command = [sys.executable, "train.py", f"--workdir={tmp_path / 'run'}", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "run").exists()
