"""Running the project's commands: in a fresh process, or in a fork of a process that has imported everything."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax

from deeptalk_jax.cli import CACHE_VARIABLE

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 300

# Imported by the server: what the commands need, without any use of a device.
_PRELOADED = (
    "data_pipeline.loader",
    "deeptalk_jax.inference.api",
    "deeptalk_jax.stages.run",
    "deeptalk_jax.studies.ablation.report",
    "deeptalk_jax.studies.ablation.runs",
)
# Reads [command, arguments, directory] per line and runs each command in a forked process.
_SERVER = """
import importlib, json, os, runpy, sys
streams, root, *modules = sys.argv[1:]
sys.path.insert(0, root)
for module in modules:
    importlib.import_module(module)
for line in sys.stdin:
    command, arguments, directory = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(directory)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{streams}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = [command, *arguments]
        status = 0
        try:
            if command.endswith(".py"):
                runpy.run_path(f"{root}/{command}", run_name="__main__")
            else:
                runpy.run_module(command, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            status = 1
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # shutting the interpreter down takes longer than most commands
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Finished(NamedTuple):
    """Result of a command.

    Attributes:
        status: exit status.
        stdout: standard output.
        stderr: standard error.
    """

    status: int
    stdout: str
    stderr: str


def _environment() -> dict[str, str]:
    """Returns the environment of commands, which share the compilation cache of this process in any directory."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",  # the repository leads sys.path, not the current directory
        CACHE_VARIABLE: jax.config.jax_compilation_cache_dir,
    }


def run_command(*words, directory: Path = ROOT, **environment: str) -> Finished:
    """Runs `python WORDS...` in a fresh process, where it matters which modules a command imports."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=directory,
        env=_environment() | environment,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


class CommandServer:
    """Runs commands in forks of one process, so that all of them together import the packages once.

    Args:
        streams: directory for the output of the current command.
    """

    def __init__(self, streams: Path):
        self._streams = streams
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(streams), str(ROOT), *_PRELOADED],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *arguments, directory: Path = ROOT) -> Finished:
        """Runs a script of the repository (`train.py`) or a module (`deeptalk_jax.tools.demo`)."""
        self._server.stdin.write(json.dumps([command, list(map(str, arguments)), str(directory)]) + "\n")
        self._server.stdin.flush()
        status = int(self._server.stdout.readline())
        return Finished(status, *((self._streams / name).read_text() for name in ("stdout", "stderr")))

    def close(self) -> None:
        """Ends the server."""
        self._server.stdin.close()
        self._server.wait()
