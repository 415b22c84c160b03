"""`infer.py`, started from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]

# Runs infer.py once for every list of flags, each in a fork, so that modules are imported once.
_MANY_RUNS = """
import json, os, runpy, sys
import deeptalk_jax.inference.api
results = []
for number, flags in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if not child:
        sys.stderr.flush()
        os.dup2(os.open(f"{number}.err", os.O_WRONLY | os.O_CREAT), 2)
        sys.argv = ["infer.py", *flags]
        try:
            runpy.run_path(sys.path[0] + "/infer.py", run_name="__main__")
        except SystemExit as end:
            sys.stderr.flush()
            os._exit(end.code)  # skips the interpreter's shutdown, which takes longer than most commands
    status = os.waitpid(child, 0)[1]
    results.append([os.waitstatus_to_exitcode(status), open(f"{number}.err").read()])
print(json.dumps(results))
"""


def run_python(arguments, directory):
    environment = os.environ | {
        "DEEPTALK_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",  # so that the repository leads sys.path
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_folder_with_good_and_bad_files(model_directory, babble, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    soundfile.write(first / "hello.there.wav", babble(0.3), 16_000)
    soundfile.write(first / "same.wav", babble(0.1), 16_000)
    soundfile.write(second / "same.flac", babble(0.2), 16_000)
    (first / "bad.wav").write_text("no sound\n")
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
    result = run_python([ROOT / "infer.py", *flags, second, missing], tmp_path)

    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout.splitlines() == [
        f"ok          0.32 s  {first}/hello.there.wav",
        f"ok          0.12 s  {first}/same.wav",
        f"failed              {first}/bad.wav: not a sound file that libsndfile reads (Format not recognised.)",
        f"failed              {first}/empty.wav: the file is empty",
        f"failed              {second}/same.flac: would overwrite the result of {first}/same.wav (same name)",
        f"failed              {missing}: no such file",
        "2 animated, 4 failed",
    ]
    assert sorted(os.listdir(out)) == ["hello.there.mp4", "hello.there.npz", "same.mp4", "same.npz"]
    for name, num_frames in (("hello.there", 8), ("same", 3)):
        with np.load(out / f"{name}.npz") as motion:
            assert motion["expression"].shape == (num_frames, 50) and motion["fps"] == 25


def test_wrong_flags_end_in_one_line(model_directory, babble, tmp_path):
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
        ({"model": None}, "Flag --model must have a value other than None."),
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
    flags = [
        [f"--{name}={value}" for name, value in (whole | changes).items() if value is not None]
        for changes, _ in cases
    ]
    result = run_python(["-c", _MANY_RUNS, json.dumps(flags)], tmp_path)
    assert result.returncode == 0, result.stderr
    for (changes, message), (status, stderr) in zip(cases, json.loads(result.stdout), strict=True):
        assert status == 2, (changes, stderr)
        assert stderr.startswith("error: ") and message in stderr and stderr.count("\n") == 1, (
            changes,
            stderr,
        )
    assert not any((tmp_path / "out").glob("*"))
