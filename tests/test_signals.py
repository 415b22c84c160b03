"""Ctrl-C and SIGTERM in command-line tools: status 75 in one line at any moment, and no partial results."""

import os
import signal
import subprocess
import sys
import time

import pytest
import soundfile

from tests.support.commands import ROOT, run_command
from tests.support.commands import _environment as environment

PRELUDE = "import gc, os, signal, sys, time\nfrom deeptalk_jax.cli import run_tool\ndef body():\n"


def run_body(tmp_path, body):
    tool = tmp_path / "tool.py"
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    tool.write_text(f"{PRELUDE}{lines}run_tool(body)\n")
    return run_command(tool)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_tool_in_one_line(tmp_path, name):
    done = run_body(tmp_path, f"signal.raise_signal(signal.{name})\nprint('resumed')")
    assert done == (75, "", f"interrupted by {name}\n")


def test_a_signal_inside_a_callback_of_the_garbage_collector_is_not_lost(tmp_path):
    body = """def callback(*_):
    gc.callbacks.clear()
    signal.raise_signal(signal.SIGINT)
    len('the handler runs here')
gc.callbacks.append(callback)
gc.collect()
time.sleep(20)
print('resumed')"""
    assert run_body(tmp_path, body) == (75, "", "interrupted by SIGINT\n")


def test_a_signal_is_reported_even_if_a_library_replaces_the_exception(tmp_path):
    body = """try:
    signal.raise_signal(signal.SIGTERM)
except BaseException:
    raise ImportError('half a module')"""
    assert run_body(tmp_path, body) == (75, "", "interrupted by SIGTERM\n")


def test_a_second_signal_ends_a_tool_at_once(tmp_path):
    body = """try:
    signal.raise_signal(signal.SIGINT)
finally:
    signal.raise_signal(signal.SIGTERM)
    print('resumed')"""
    assert run_body(tmp_path, body) == (75, "", "")


def test_a_forked_worker_is_ended_as_usual(tmp_path):
    body = """ready, write = os.pipe()
child = os.fork()
if not child:
    os.write(write, b'x')
    time.sleep(20)
    os._exit(0)
os.read(ready, 1)
os.kill(child, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"""
    assert run_body(tmp_path, body) == (0, "-15\n", "")


@pytest.mark.parametrize("moment", ["early", "late"])
def test_infer_lists_what_is_done_and_leaves_no_temporary_file(moment, model_directory, babble, tmp_path):
    sounds, out = tmp_path / "sounds", tmp_path / "out"
    sounds.mkdir()
    for number in range(9):
        soundfile.write(sounds / f"{number}.wav", babble(8.0), 16_000)
    flags = [f"--model={model_directory}", f"--audio={sounds}", f"--out={out}", "--formats=npz,mp4"]
    process = subprocess.Popen(
        [sys.executable, ROOT / "infer.py", *flags, "--batch_size=1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wanted = "out" if moment == "early" else "out/*.npz"
    for _ in range(1200):
        if next(tmp_path.glob(wanted), None):
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT if moment == "early" else signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr and "ignored" not in stderr
    assert not list(out.glob(".*"))
    if moment == "early":
        assert stderr.splitlines()[-1].startswith("interrupted by SIGINT")
    else:
        done = stdout.count("ok  ")
        assert stdout.splitlines()[-1] == f"{done} animated, 0 failed"
        assert stderr.splitlines()[-1] == f"interrupted by SIGTERM: {9 - done} of 9 sounds are not done"
        assert len(list(out.glob("*.mp4"))) == done
