"""Progress bars: a bar on a terminal, a line every 30 s in a log."""

import io
import sys

import pytest
from tqdm import std

from deeptalk_jax.progress import progress_bar


class Screen(io.StringIO):
    """A stand-in for standard error that says whether it is a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def run_for(monkeypatch):
    """Returns `(seconds, terminal) -> stderr` of a bar that is updated once per second of a clock."""

    def run(seconds, terminal, leave=True):
        clock = [1000.0]
        monkeypatch.setattr(std, "time", lambda: clock[0])
        monkeypatch.setattr(sys, "stderr", Screen(terminal))
        with progress_bar(total=seconds, desc="fer", unit="step", leave=leave) as bar:
            bar._time = lambda: clock[0]
            bar.start_t = bar.last_print_t = clock[0]
            for second in range(seconds):
                clock[0] += 1
                bar.set_postfix(loss=second)
                bar.update()
        return sys.stderr.getvalue()

    return run


def test_a_log_gets_a_line_every_30_seconds_and_the_last_one(run_for):
    lines = run_for(100, terminal=False).splitlines()
    assert [line.split("/100")[0].split()[-1] for line in lines] == ["30", "60", "90", "100"]
    assert lines[1].startswith("fer:  60%") and "loss=59" in lines[1]


def test_a_short_task_writes_only_its_last_line_into_a_log(run_for):
    (line,) = run_for(20, terminal=False).splitlines()
    assert line.startswith("fer: 100%")
    assert run_for(20, terminal=False, leave=False) == ""


def test_a_terminal_shows_a_bar_in_one_line(run_for):
    shown = run_for(5, terminal=True)
    assert shown.count("\n") == 1 and shown.count("\r") > 3
