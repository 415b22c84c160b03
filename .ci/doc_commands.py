"""Runs the commands and Python examples of all pages after `make demo`, so that no page goes stale.

They run in a scratch copy of the tree with the demo's outputs, cut short as `doc_rules.py` says.
"""

import concurrent.futures
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from doc_rules import CONSOLE, PAGES, PYTHON, RECIPES, ROOT, Command, commands


def prepare(scratch: Path) -> None:
    """Fills a scratch copy of the tree with the demo's outputs and the files of a person's own that pages name."""
    for entry in ROOT.iterdir():
        if entry.name not in ("outputs", ".cache", ".git"):
            (scratch / entry.name).symlink_to(entry)
    demo = ROOT / "outputs" / "demo"
    # A copy: evaluation writes into work directories. The data, which are large, are only read.
    shutil.copytree(demo, scratch / "outputs" / "demo", ignore=shutil.ignore_patterns("data", "checkpoints"))
    (scratch / "outputs" / "demo" / "data").symlink_to(demo / "data")
    random = np.random.default_rng(0)
    frames = {"expression": random.normal(size=(64, 50)), "jaw_pose": random.normal(size=(64, 3)) * 0.1}
    (scratch / "data").mkdir()
    for split in ("train", "validation", "test"):
        np.savez(scratch / "data" / f"affectnet_{split}.npz", **frames, emotion=np.arange(64) % 8)
    speech, rate_hz = soundfile.read(demo / "speech.wav")
    with np.load(demo / "talking_head.npz") as motion:
        expression, jaw_pose, fps = (motion[name] for name in ("expression", "jaw_pose", "fps"))
    speech = np.pad(speech, (0, len(jaw_pose) * rate_hz // int(fps) - len(speech)))
    soundfile.write(scratch / "anna.wav", np.tile(speech, 5), rate_hz)
    np.savez(
        scratch / "anna.npz",
        expression=np.tile(expression, (5, 1)),
        jaw_pose=np.tile(jaw_pose, (5, 1)),
        fps=fps,
    )


def run(command: Command, scratch: Path) -> str:
    """Runs a command; returns a description of the failure, or an empty string."""
    program = (scratch / PYTHON).with_name(CONSOLE) if command.words[0] == CONSOLE else scratch / PYTHON
    words = [str(program), *command.words[1:], *command.added_flags]
    if command.is_foreign:
        words = ["make", "-n", *command.words[1:]]
    cache = os.environ.get("DEEPTALK_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    environment = {**os.environ, "DEEPTALK_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(scratch)}  # no weights are downloaded
    start = time.perf_counter()
    done = subprocess.run(words, cwd=scratch, env=environment, capture_output=True, text=True)
    text = " ".join(" ".join(command.words).split())[:200]
    print(f"{time.perf_counter() - start:6.1f} s  {command.page}: {text}", flush=True)
    status, error = 0, command.expected_error
    if error is not None:
        status = 2
        if not done.stderr.startswith("error: ") or error.message not in done.stderr.splitlines()[0]:
            return f"{command}: expected one line with {error.message!r} ({error.reason}), got {done.stderr}"
    return "" if done.returncode == status else f"{command}: exit status {done.returncode}\n{done.stderr}"


def main() -> None:
    """Runs the commands of the pages given as arguments, by default of all, those of the README first.

    Other pages use the models that the README trains; they run two at a time.
    """
    seen: set[tuple[str, ...]] = set()
    pages: dict[str, list[Command]] = {}
    for page in sys.argv[1:] or PAGES:
        for command in commands(page) if page != RECIPES else ():
            if command.words not in seen and (not command.is_foreign or command.words[0] == "make"):
                pages.setdefault(page, []).append(command)
            seen.add(command.words)
    with tempfile.TemporaryDirectory() as scratch, concurrent.futures.ThreadPoolExecutor(2) as pool:
        prepare(Path(scratch))

        def run_page(page: str) -> list[str]:
            return [run(command, Path(scratch)) for command in pages.pop(page)]

        failures = run_page("README.md") if "README.md" in pages else []
        failures += [failure for page in pool.map(run_page, list(pages)) for failure in page]
    if failures := list(filter(None, failures)):
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()
