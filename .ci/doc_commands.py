"""Runs the commands and Python examples of README.md and docs/*.md after `make demo`, so that no page goes stale.

They run as written, in a scratch copy of the tree with the demo's outputs. Flags that are added cut long commands
short: two training steps, a few clips. The same command runs once, however many pages show it. Three kinds of
commands are not expected to succeed or not run at all, see `EXPECTED_ERRORS` and `FOREIGN`. `tests/test_docs.py`
checks what needs no run: syntax, flags, config keys, links, names.
"""

import concurrent.futures
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md")))
# Its blocks are parts of files; tests/test_extending.py follows the recipes.
RECIPES = "docs/extending.md"

# Programs of clusters and installers: their blocks are parsed, and the flags of our tools in them are checked.
FOREIGN = ("export", "gcloud", "kubectl", "make", "pip", "sbatch")

TWO_STEPS = (
    "--config.num_steps=2",
    "--config.data.batch_size=8",
    "--config.data.eval_clips=8",
    "--config.optimiser.warmup_steps=1",
)
# By flag or tool; the first entry that a command names counts. One table of ablations is trained, others are written
# without a run.
ADDED_FLAGS = {
    "--workdir=outputs/ablation_prior": ("--rows=none", "--seeds=1", *TWO_STEPS),
    "benchmarks.emotion_control": ("--num_voices=1",),
    "data_pipeline.build": ("--num_clips=64",),
    "deeptalk_jax.studies.ablation": ("--table_only",),
    "deeptalk_jax.studies.prior_levels": ("--num_pairs=2",),
    "deeptalk_jax.studies.sampling_controls": ("--num_clips=2", "--num_samples=2"),
    "eval.py": ("--config.data.eval_clips=8",),
    "train.py": TWO_STEPS,
}


class ExpectedError(NamedTuple):
    """A command that needs something that is not available everywhere, and the error line that it ends with."""

    flag: str
    message: str
    reason: str


EXPECTED_ERRORS = (
    ExpectedError("--generator=DEEPTalk.pth", "DEEPTalk.pth", "the published weights are licensed"),
    ExpectedError("--model=outputs/published", "outputs/published", "needs the import above"),
    ExpectedError(
        "--emotion2vec=emotion2vec_base.pt", "emotion2vec_base.pt", "weights of 360 MB from the hub"
    ),
    ExpectedError("--config.pretrained.speech=outputs/encoders", "outputs/", "needs the import above"),
    ExpectedError("--topology=v5e:16x16", 'pip install ".[aot]"', "libtpu is a package of 700 MB"),
    ExpectedError("--topology=h100:8x32", 'pip install ".[cuda]"', "the CUDA compiler is a package of 3 GB"),
)


class Command(NamedTuple):
    """A command of a page.

    Attributes:
        page: where it is written.
        words: as a shell splits them.
    """

    page: str
    words: tuple[str, ...]

    @property
    def is_foreign(self) -> bool:
        """Whether it is parsed only."""
        return self.words[0] in FOREIGN

    @property
    def tool(self) -> str:
        """Script or module that it runs; empty for a Python example and for other programs."""
        words = [word for word in self.words[1:] if word != "-m"]
        return "" if self.is_foreign or self.words[1] == "-c" else words[0]

    @property
    def added_flags(self) -> tuple[str, ...]:
        """Flags that cut it short."""
        return next((flags for key, flags in ADDED_FLAGS.items() if key in (self.tool, *self.words)), ())

    @property
    def expected_error(self) -> ExpectedError | None:
        """The error that it must end with, if any."""
        return next((error for error in EXPECTED_ERRORS if error.flag in self.words), None)


def blocks(page: str, language: str) -> list[str]:
    """Fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def commands(page: str) -> list[Command]:
    """Shell commands of a page, then its Python examples."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    found += [[".venv/bin/python", "-c", code] for code in blocks(page, "python")]
    return [Command(page, tuple(words)) for words in found if words]


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
    words = [str(scratch / ".venv/bin/python"), *command.words[1:], *command.added_flags]
    if command.is_foreign:
        words = ["make", "-n", *command.words[1:]]
    cache = os.environ.get("DEEPTALK_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    environment = {**os.environ, "DEEPTALK_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    done = subprocess.run(words, cwd=scratch, env=environment, capture_output=True, text=True)
    print(
        f"{time.perf_counter() - start:6.1f} s  {command.page}: {shlex.join(command.words)[:200]}", flush=True
    )
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
