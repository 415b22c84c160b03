"""Runs every command and the Python example of the README, as they stand there, after `make demo`.

They run in a scratch copy of the tree whose `outputs/demo` is the real one; training is cut to two steps and the
corpus to a few clips by flags that are added.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TWO_STEPS = ["--config.num_steps=2", "--config.data.eval_clips=8", "--config.optimiser.warmup_steps=1"]
ADDED_FLAGS = {"train.py": TWO_STEPS, "eval.py": TWO_STEPS, "data_pipeline.build": ["--num_clips=64"]}


def readme_blocks(language: str) -> list[str]:
    """Fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


def commands() -> list[list[str]]:
    """Shell commands, continuation lines joined; the make targets are what CI itself runs."""
    text = "".join(readme_blocks("sh")).replace("\\\n", " ")
    found = [line.split("  #")[0].split() for line in text.splitlines()]
    found = [words for words in found if words and words[0] != "make"]
    for words in found:
        words += next((flags for name, flags in ADDED_FLAGS.items() if name in words), [])
    return found


def main() -> None:
    """Runs them in turn; the first failure ends it with its exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        for entry in ROOT.iterdir():
            if entry.name not in ("outputs", ".cache", ".git"):
                (Path(scratch) / entry.name).symlink_to(entry)
        outputs = Path(scratch) / "outputs"
        outputs.mkdir()
        (outputs / "demo").symlink_to(ROOT / "outputs" / "demo")
        environment = {**os.environ, "DEEPTALK_CACHE_DIR": str(ROOT / ".cache" / "jax")}
        examples = [[".venv/bin/python", "-c", code] for code in readme_blocks("python")]
        for command in [*commands(), *examples]:
            print("$", " ".join(command), flush=True)
            status = subprocess.run(command, cwd=scratch, env=environment).returncode
            if status:
                sys.exit(f"README: exit status {status} of: {' '.join(command)}")


if __name__ == "__main__":
    main()
