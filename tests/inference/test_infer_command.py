"""`infer.py`, started from the command line."""

import os

import numpy as np
import soundfile

from tests.support.commands import ROOT, run_command


def test_a_folder_with_good_and_bad_files(model_directory, babble, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    soundfile.write(first / "hello.there.wav", babble(0.3), 16_000)
    soundfile.write(first / "same.wav", babble(0.1), 16_000)
    soundfile.write(second / "same.flac", babble(0.2), 16_000)
    (first / "bad.wav").write_text("no sound\n")
    (first / "notes.txt").write_text("read me\n")
    (first / "empty.wav").write_bytes(b"")
    missing = tmp_path / "missing.wav"
    out = tmp_path / "deep" / "out"

    flags = [
        f"--model={model_directory}",
        f"--audio={first}",
        f"--out={out}",
        "--formats=npz,mp4",
        "--emotion=happy@3:0.8,sad:0.2",
    ]
    result = run_command(ROOT / "infer.py", *flags, second, missing, directory=tmp_path)

    assert result.status == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.splitlines() == [
        f"ok          0.32 s  {first}/hello.there.wav",
        f"ok          0.12 s  {first}/same.wav -> same.wav.npz",
        f"ok          0.20 s  {second}/same.flac -> same.flac.npz",
        f"failed              {first}/bad.wav: not sound but text",
        f"failed              {first}/empty.wav: the file is empty",
        f"failed              {missing}: no such file",
        f"left out            {first}/notes.txt: not sound but text",
        "3 animated, 3 failed, 1 left out",
    ]
    assert sorted(os.listdir(out)) == [
        f"{name}.{kind}" for name in ("hello.there", "same.flac", "same.wav") for kind in ("mp4", "npz")
    ]
    for name, num_frames in (("hello.there", 8), ("same.wav", 3), ("same.flac", 5)):
        with np.load(out / f"{name}.npz") as motion:
            assert motion["expression"].shape == (num_frames, 50) and motion["fps"] == 25


def test_wrong_flags_end_in_one_line(commands, model_directory, babble, tmp_path):
    soundfile.write(tmp_path / "a.wav", babble(0.2), 16_000)
    (tmp_path / "file").write_text("")
    (tmp_path / "nothing").mkdir()
    whole = {"model": str(model_directory), "audio": "a.wav", "out": "out"}
    cases = [
        ({"formats": "npz,obj"}, "--formats=npz,obj: expected any of npz, mp4"),
        ({"formats": ""}, "--formats=: expected any of npz, mp4"),
        ({"audio": None}, "no sound file is given; name sound files or directories with --audio="),
        ({"audio": "nothing"}, "nothing: the directory holds no sound file"),
        ({"model": "nothing"}, "nothing: no model directory (it holds no model.json)"),
        ({"model": None}, "--model: required, give --model=VALUE (Model directory written by training)"),
        ({"out": "file/out"}, "--out=file/out: cannot be created (Not a directory)"),
        ({"emotion_track": "gone.csv"}, "gone.csv: cannot be read (No such file or directory)"),
        (
            {"emotion": "happy", "emotion_audio": "a.wav"},
            "--emotion and --emotion_audio exclude one another: give one of --emotion, --emotion_audio, ",
        ),
        ({"num_samples": "2"}, "num_samples=2 would give equal motions: temperature_top, "),
        ({"temperature_top": "warm"}, "flag --temperature_top=warm: "),
        ({"colour": "red"}, "Unknown command line flag 'colour'"),
    ]
    for changes, message in cases:
        flags = [f"--{name}={value}" for name, value in (whole | changes).items() if value is not None]
        result = commands.run("infer.py", *flags, directory=tmp_path)
        assert result.status == 2, (changes, result.stderr)
        assert result.stderr.startswith("error: ") and message in result.stderr, (changes, result.stderr)
        assert result.stderr.count("\n") == 1, (changes, result.stderr)
    assert not any((tmp_path / "out").glob("*"))
