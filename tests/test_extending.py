"""The recipes of docs/extending.md, followed literally in a copy of the tree.

A block of Python after a line that names a new file becomes that file, a diff after a line that names a file edits it,
and the shell block at the end of a recipe must succeed.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_TEXT = (ROOT / "docs" / "extending.md").read_text()
RECIPES = dict(re.findall(r"^## (Add [^\n]*)\n(.*?)(?=^## |\Z)", _TEXT, re.M | re.S))
_BLOCK = re.compile(
    r"(?P<before>(?:[^\n]+\n)+)\n```(?P<language>python|diff|sh)\n(?P<body>.*?)^```", re.M | re.S
)
_COPIED = (
    "benchmarks",
    "configs",
    "data_pipeline",
    "deeptalk_jax",
    "eval.py",
    "infer.py",
    "pyproject.toml",
    "tests",
    "train.py",
)


def edited(text, diff):
    """The text with a diff applied: the old lines of every hunk must occur exactly once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(f"\n{old}") == 1, f"{text.count(old)} places for:\n{old}"
        text = text.replace(f"\n{old}", f"\n{new}")
    return text


def follow(recipe, tree):
    """Applies the blocks of a recipe to a tree; returns the changed files and the commands of the check."""
    files, commands = [], []
    for block in _BLOCK.finditer(recipe):
        if block["language"] == "sh":
            commands += block["body"].replace("\\\n", " ").splitlines()
            continue
        file = tree / re.findall(r"`([\w/]+\.py)`", block["before"])[-1]
        if block["language"] == "diff":
            file.write_text(edited(file.read_text(), block["body"]))
        else:
            assert not file.exists(), file
            file.write_text(block["body"])
        files.append(str(file))
    return files, commands


def test_every_recipe_is_found():
    assert list(RECIPES) == [
        "Add a loss",
        "Add a metric",
        "Add a data set",
        "Add a stage",
        "Add an export format",
    ]
    assert _TEXT.count("```") == 2 * sum(len(_BLOCK.findall(recipe)) for recipe in RECIPES.values())


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_works_as_written(name, tmp_path):
    for entry in _COPIED:
        copy = shutil.copytree if (ROOT / entry).is_dir() else shutil.copy
        copy(ROOT / entry, tmp_path / entry)
    files, commands = follow(RECIPES[name], tmp_path)
    for check in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *check, *files], cwd=tmp_path, check=True)
    assert commands
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for command in commands:
        python, *words = shlex.split(command)
        assert python == ".venv/bin/python"
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
