"""Output files of a study."""

import json

import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.studies.figure_file import figure_path, write_figure


def test_figure_and_numbers_are_written_side_by_side(tmp_path):
    path = figure_path(str(tmp_path / "new" / "levels.png"))
    write_figure(path, {"value": 1}, lambda report: str(report["value"]).encode())
    assert path.read_bytes() == b"1"
    assert json.loads(path.with_suffix(".json").read_text()) == {"value": 1}


def test_only_png_is_accepted():
    with pytest.raises(UserError, match=r"--out=levels\.gif: expected a file name that ends in \.png"):
        figure_path("levels.gif")


def test_unwritable_directory_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out=.*levels\.png: cannot be written \(File exists\)"):
        write_figure(tmp_path / "file" / "levels.png", {}, lambda report: b"")
