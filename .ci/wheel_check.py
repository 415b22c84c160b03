"""Installs the wheel into an empty environment and animates a file with it, as somebody without the repository would.

    python .ci/wheel_check.py [newest|lowest|locked] ...

Each word stands for an environment with the versions of the dependencies that it names: the newest that exist, the
lowest that pyproject.toml allows, or those of requirements.txt (the default). It needs the model and the speech of
`make demo`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "outputs" / "demo"
# Modules of the extras and of the clone. (orbax and optax come with flax.)
ABSENT = (
    "configs",
    "data_pipeline",
    "deeptalk_jax.stages",
    "deeptalk_jax.training",
    "espeakng_loader",
    "grain",
)
ABSENT += ("matplotlib", "tensorboardX", "tensorflow_datasets", "transformers")

# Runs in the environment, in an empty directory: prints the modules that should be absent, and animates by Python.
PROGRAM = f"""
import importlib.util, sys
from importlib import metadata, resources
def exists(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
present = [name for name in {ABSENT!r} if exists(name)]
assert not present, present
assert resources.files("deeptalk_jax").joinpath("py.typed").is_file()
from deeptalk_jax import DeepTalk, __version__
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.interop.published_parts import published_config
assert published_config("deeptalk").variant == "base"
motion = DeepTalk.load(sys.argv[1]).animate(sys.argv[2])
assert motion == Motion.load("out/speech.npz"), "Python and the command differ"
assert __version__[0].isdigit()
print(motion, *(f"{{name}} {{metadata.version(name)}}" for name in ("jax", "flax", "numpy")), sep=", ")
"""


def run(*words: object, directory: Path, status: int = 0) -> str:
    """Runs a command without the repository on its path; returns its output, or its errors where it is to fail."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, words)), cwd=directory, env=environment, capture_output=True, text=True
    )
    if done.returncode != status:
        sys.exit(f"{' '.join(map(str, words))}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stderr if status else done.stdout


def build_wheel(scratch: Path) -> Path:
    """Builds the wheel from a copy of the tree, in which no older build can leave files."""
    tree = scratch / "tree"
    shutil.copytree(
        ROOT,
        tree,
        ignore=shutil.ignore_patterns(".*", "outputs", "build", "*.egg-info", "tests", "__pycache__"),
    )
    if uv := shutil.which("uv"):
        run(uv, "build", "--quiet", "--wheel", "--out-dir", scratch / "dist", directory=tree)
    else:
        words = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", scratch / "dist", ".")
        run(sys.executable, *words, directory=tree)
    (wheel,) = (scratch / "dist").glob("*.whl")
    return wheel


def constraints(versions: str, scratch: Path) -> list[object]:
    """Returns the arguments of pip that select the versions of the dependencies."""
    if versions == "newest":
        return []
    if versions == "locked":
        return ["--constraint", ROOT / "requirements.txt"]
    ranges = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    file = scratch / "lowest.txt"
    file.write_text("".join(f"{entry.replace('[epath]', '').replace('>=', '==')}\n" for entry in ranges))
    return ["--constraint", file]


def install(wheel: Path, environment: Path, arguments: list[object]) -> Path:
    """Makes an environment that holds the wheel and its dependencies only; returns its directory of programs."""
    programs = environment / "bin"
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", sys.executable, environment, directory=wheel.parent)
        pip = (uv, "pip", "install", "--quiet", "--python", programs / "python")
    else:
        run(sys.executable, "-m", "venv", environment, directory=wheel.parent)
        pip = (programs / "python", "-m", "pip", "install", "--quiet", "--no-compile")
    run(*pip, wheel, *arguments, directory=wheel.parent)
    return programs


def check(programs: Path, directory: Path) -> None:
    """Animates by the command and by Python, and looks at two commands that the wheel cannot run."""
    directory.mkdir()
    model, speech = DEMO / "model", DEMO / "speech.wav"
    print(run(programs / "deeptalk", "--version", directory=directory), end="")
    flags = (f"--model={model}", f"--audio={speech}", "--out=out", "--formats=npz,mp4,emotions.json")
    print(run(programs / "deeptalk", "animate", *flags, directory=directory), end="")
    print(run(programs / "python", "-c", PROGRAM, model, speech, directory=directory), end="")
    for words, message in (
        (("deeptalk", "import-published", "--generator=gone.pth", "--out=published"), "gone.pth"),
        (("python", "-m", "deeptalk_jax.tools.demo"), "extra [train]"),
        (("python", "-m", "deeptalk_jax.tools.emotion_centroids", f"--model={model}"), "extra [train]"),
    ):
        text = run(programs / words[0], *words[1:], directory=directory, status=2)
        assert text.startswith("error: ") and message in text and text.count("\n") == 1, text


def main() -> None:
    """Checks the environments that the arguments name."""
    environments = sys.argv[1:] or ["locked"]
    if unknown := set(environments) - {"newest", "lowest", "locked"}:
        sys.exit(f"{', '.join(unknown)}: expected newest, lowest or locked")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        wheel = build_wheel(scratch)
        for versions in environments:
            start = time.perf_counter()
            programs = install(wheel, scratch / versions, constraints(versions, scratch))
            print(f"{versions} versions, installed in {time.perf_counter() - start:.0f} s")
            check(programs, scratch / f"{versions}.run")


if __name__ == "__main__":
    main()
