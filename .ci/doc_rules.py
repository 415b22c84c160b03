"""Commands and Python examples of the pages, and the rules by which `doc_commands.py` runs them.

The pages are README.md, CONTRIBUTING.md and docs/*.md. A command without a rule is run as written and must succeed. The
same command runs once, however many pages show it. `tests/test_docs.py` checks that every command is covered, and what
needs no run: syntax, flags, config keys.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

PYTHON = ".venv/bin/python"
ROOT = Path(__file__).resolve().parent.parent
# The command of the installed package, in the same environment.
CONSOLE = "deeptalk"
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/*.md")),
)
# Its blocks are parts of files; tests/test_extending.py follows the recipes.
RECIPES = "docs/extending.md"

# Other programs. Their commands are parsed (make with -n), and the flags of our tools in them are checked.
FOREIGN = (".ci/run", ".venv/bin/pytest", "docker", "export", "gcloud", "kubectl", "make", "pip", "sbatch")

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
    "deeptalk_jax.studies.face_score": ("--clips=24",),
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
    ExpectedError("--speech=recordings", "recordings/aligned.json", "needs recordings with aligned phones"),
    ExpectedError("--model=outputs/published", "outputs/published", "needs the import above"),
    ExpectedError(
        "--emotion2vec=emotion2vec_base.pt", "wav2vec2-base-960h", "weights of 360 MB from the hub"
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
        if self.words[0] == CONSOLE:
            return f"deeptalk_jax.tools.{self.words[1].replace('-', '_')}"
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
    found += [[PYTHON, "-c", code] for code in blocks(page, "python")]
    return [
        Command(page, tuple(PYTHON if word == "python" else word for word in words))
        for words in found
        if words
    ]
