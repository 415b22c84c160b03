"""Finding sounds in folders: what is read, what is left out with which reason, and the names of the results."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import printable, replace_when_whole
from deeptalk_jax.inference.find_sounds import LeftOut, find_sounds, left_out_lines, result_path


def write_sound(path, kind="WAV"):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(800, 0.1), 16_000, format=kind)


def targets(*paths, out=None):
    return {str(sound.path): str(sound.target) for sound in find_sounds(paths, out)[0]}


def test_the_tree_of_a_folder_is_mirrored_and_hidden_files_are_ignored(tmp_path):
    for name in (
        "line.wav",
        "anna/line.wav",
        "ben/deep/a.b.FLAC",
        ".hidden/a.wav",
        "anna/._line.wav",
        ".a.wav",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    given = tmp_path / "anna/line.wav"
    assert targets(tmp_path) == {
        f"{tmp_path}/line.wav": "line",
        f"{tmp_path}/anna/line.wav": "anna/line",
        f"{tmp_path}/ben/deep/a.b.FLAC": "ben/deep/a.b",
    }
    assert targets(given, "gone.xyz") == {str(given): "line", "gone.xyz": "gone"}


def test_files_without_a_sound_extension_are_judged_by_their_contents(tmp_path):
    write_sound(tmp_path / "take7")
    write_sound(tmp_path / "b.dat", "AIFF")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "face.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "broken").symlink_to("nothing")
    os.mkfifo(tmp_path / "pipe")
    sounds, left_out = find_sounds([tmp_path])
    assert [sound.path.name for sound in sounds] == ["b.dat", "take7"]
    assert {line.path.name: line.reason for line in left_out} == {
        "notes.txt": "not sound but text",
        "face.png": "not sound but a picture",
        "broken": "a link to nothing",
        "pipe": "neither a file nor a directory",
    }


def test_many_files_of_one_kind_share_a_line(tmp_path):
    left_out = [LeftOut(tmp_path / f"{n}.txt", "not sound but text") for n in range(9)]
    left_out.append(LeftOut(tmp_path / "a.png", "not sound but a picture"))
    assert left_out_lines(left_out) == [
        f"{tmp_path}: 9 files *.txt: not sound but text",
        f"{tmp_path}/a.png: not sound but a picture",
    ]


def test_loops_of_links_and_the_output_directory_are_not_read(tmp_path):
    write_sound(tmp_path / "in/a/line.wav")
    write_sound(tmp_path / "in/out/line.wav")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/self").symlink_to("self")
    sounds, left_out = find_sounds([tmp_path / "in"], tmp_path / "in/out")
    assert [str(sound.target) for sound in sounds] == ["a/line"]
    assert left_out_lines(left_out) == [f"{tmp_path}/in/self: a link to nothing"]


def test_equal_stems_never_give_equal_targets():
    assert targets("x/a.wav", "x/a.flac", "b.wav", "b.wav") == {
        "x/a.wav": "a.wav",
        "x/a.flac": "a.flac",
        "b.wav": "b",
    }
    assert targets("x/a.wav", "y/a.wav") == {"x/a.wav": "x_a.wav", "y/a.wav": "y_a.wav"}
    assert targets("u/x/a.wav", "v/x/a.wav") == {"u/x/a.wav": "x_a.wav", "v/x/a.wav": "a.wav_2"}
    assert targets("a.wav.wav", "a.wav", "a.mp3")["a.wav.wav"] == "a.wav"
    assert len(set(targets("a.wav.wav", "a.wav", "a.mp3").values())) == 3


def test_names_of_any_bytes_and_of_the_greatest_length_can_be_written(tmp_path):
    long, strange = "x" * 251 + ".wav", os.fsdecode(b"\xff\n.wav")
    found = targets(tmp_path / long, tmp_path / ("x" * 250 + "y.wav"), tmp_path / strange)
    assert len(set(found.values())) == 3
    assert found[str(tmp_path / strange)] == os.fsdecode(b"\xff\n")
    for target in found.values():
        for ending in (".npz", "_100.npz"):
            with replace_when_whole(tmp_path / result_path(Path(target), ending)) as temporary:
                temporary.write_text("whole")
    assert len(list(tmp_path.glob("*.npz"))) == 6
    assert (tmp_path / ("x" * 251 + ".npz")).exists()
    assert printable(strange) == "\\udcff\\n.wav"


def test_a_folder_without_sound_is_rejected_with_a_reason(tmp_path):
    with pytest.raises(UserError, match=r"no sound file is given"):
        find_sounds([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: the directory holds no sound file$"):
        find_sounds([tmp_path / "empty"])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(
        UserError, match=r"the directory holds no sound file \(.*notes.txt: not sound but text\)"
    ):
        find_sounds([Path(tmp_path)])
