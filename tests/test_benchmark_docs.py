"""Tests that every benchmark command documents its question, its command and its JSON line."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
COMMANDS = sorted(path for path in FOLDER.glob("*.py") if "run_tool(" in path.read_text())


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_docstring_states_question_command_and_json_line(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text.startswith("Benchmark: ") and text.splitlines()[0].endswith("?")
    assert f"\n    python -m benchmarks.{path.stem}" in text
    assert "The last line is a JSON object" in text


def test_package_docstring_lists_the_commands():
    text = ast.get_docstring(ast.parse((FOLDER / "__init__.py").read_text()))
    listed = text.partition("Commands: ")[2].partition(",\nrun as")[0].partition(", run as")[0]
    assert sorted(listed.replace(" and ", ", ").split(", ")) == [path.stem for path in COMMANDS]
