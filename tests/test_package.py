"""The wheel and its dependencies, as far as they show without building it; .ci/wheel_check.py installs it."""

import ast
import re
import sys
import tomllib
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deeptalk_jax import __main__ as console
from deeptalk_jax.extras import CLONE_ONLY, EXTRA_OF_MODULE, advice
from tests.support.commands import ROOT, run_command

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
DISTRIBUTIONS = metadata.packages_distributions()
# Modules of the wheel that only a clone can run; `extras.advice` says so.
NEED_A_CLONE = {f"tools/{name}.py" for name in ("demo", "demo_pictures", "demo_stages", "emotion_centroids")}


def names(entries):
    """Distribution names of requirements."""
    return {canonicalize_name(Requirement(entry).name) for entry in entries}


def distribution_of(module):
    """Name of the installed distribution that a top-level module belongs to."""
    return canonicalize_name(DISTRIBUTIONS[module][0])


def in_wheel(file):
    package = ".".join(file.relative_to(ROOT).parts[:2])
    excluded = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["exclude"]
    return f"{package}*" not in excluded


WHEEL_FILES = [file for file in (ROOT / "deeptalk_jax").rglob("*.py") if in_wheel(file)]


def imported_modules(file):
    """Names of all modules that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_every_import_of_the_wheel_is_a_core_dependency_or_named_as_an_extra():
    core = names(PYPROJECT["project"]["dependencies"])
    used = set()
    for file in WHEEL_FILES:
        for module in imported_modules(file):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names or top in EXTRA_OF_MODULE or top == "deeptalk_jax":
                continue
            if file.relative_to(ROOT / "deeptalk_jax").as_posix() not in NEED_A_CLONE:
                used.add(distribution_of(top))
    # JAX uses filelock for the bound of its cache.
    assert used | {"filelock"} == core


def test_modules_of_the_wheel_import_nothing_that_stays_in_the_clone():
    for file in WHEEL_FILES:
        wrong = [
            module for module in imported_modules(file) if re.match(rf"({'|'.join(CLONE_ONLY)})\b", module)
        ]
        needs_clone = file.relative_to(ROOT / "deeptalk_jax").as_posix() in NEED_A_CLONE
        assert not wrong or needs_clone, f"{file} imports {wrong}"


def test_the_table_of_what_the_wheel_lacks_is_that_of_pyproject():
    excluded = {name.rstrip("*") for name in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["exclude"]}
    assert set(CLONE_ONLY) == excluded | {"configs", "data_pipeline"}
    core = names(PYPROJECT["project"]["dependencies"])
    for extra in ("train", "demo"):
        modules = {module for module, name in EXTRA_OF_MODULE.items() if name == extra}
        assert {distribution_of(module) for module in modules} == names(EXTRAS[extra]) - core


def test_the_lock_file_pins_every_package_within_its_range():
    lines = (line.strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    ranges = [
        Requirement(entry)
        for entry in (*PYPROJECT["project"]["dependencies"], *EXTRAS["train"], *EXTRAS["demo"])
    ]
    assert pins.keys() == {canonicalize_name(entry.name) for entry in ranges}
    for entry in ranges:
        assert entry.specifier.contains(pins[canonicalize_name(entry.name)]), entry
        assert str(entry.specifier).startswith(">="), (
            f"{entry}: expected a lower bound that wheel_check can install"
        )


def declared_licence(name):
    """What an installed distribution declares: an SPDX expression, classifiers, or the first line of a text."""
    fields = metadata.metadata(name)
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in fields.get_all("Classifier") or []
        if entry.startswith("License ::")
    ]
    text = (fields.get("License") or "none").strip().splitlines()[0]
    return fields.get("License-Expression") or "; ".join(classifiers) or text


def test_the_table_of_licences_is_what_the_installed_packages_declare():
    core = PYPROJECT["project"]["dependencies"]
    rows = []
    for use, entries in (("inference", core), ("`[train]`", EXTRAS["train"]), ("`[demo]`", EXTRAS["demo"])):
        for entry in map(Requirement, entries):
            if use == "inference" or canonicalize_name(entry.name) not in names(core):
                rows.append(
                    f"| {entry.name} | `{entry.specifier}` | {use} | {declared_licence(entry.name)} |"
                )
    page = (ROOT / "docs" / "install.md").read_text()
    table = page.partition("| declared licence |\n")[2].partition("\n\n")[0]
    assert table.splitlines()[1:] == rows
    assert "eSpeak NG, which is GPL-3.0-or-later" in page


def test_the_changelog_begins_with_the_version_of_the_package():
    newest = re.search(r"^## ([\d.]+) - ", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest[1] == PYPROJECT["project"]["version"]


@pytest.mark.parametrize("command", console.COMMANDS)
def test_every_subcommand_is_a_tool_of_the_wheel(command):
    module = console.COMMANDS[command][0]
    assert ROOT.joinpath(*module.split(".")).with_suffix(".py") in WHEEL_FILES
    assert PYPROJECT["project"]["scripts"] == {"deeptalk": "deeptalk_jax.__main__:main"}


def test_the_command_without_arguments_lists_its_subcommands(commands):
    for words in ((), ("--help",), ("-h",)):
        done = commands.run("deeptalk_jax", *words)
        assert done.status == 0
        assert all(f"\n  {command} " in done.stdout for command in console.COMMANDS)


def test_the_flags_of_a_subcommand_are_in_its_help(commands):
    for name, flag in (
        ("animate", "--temperature_top"),
        ("fit-identity", "--motion"),
        ("import-published", "--dee"),
    ):
        done = commands.run("deeptalk_jax", name, "--help")
        assert done.status == 0
        assert f"\ndeeptalk {name}:\n" in done.stdout and f"\n  {flag}: " in done.stdout


def test_a_wrong_subcommand_ends_in_one_line(commands):
    assert commands.run("deeptalk_jax", "animat") == (
        2,
        "",
        "error: deeptalk has no command 'animat'; did you mean 'animate'?\n",
    )
    assert commands.run("deeptalk_jax", "x").stderr == (
        "error: deeptalk has no command 'x'; expected one of: animate, fit-identity, import-published\n"
    )


def run_without(module, tmp_path):
    """Runs a tool that synthesises speech where a module cannot be found."""
    tool = tmp_path / "tool.py"
    tool.write_text(
        "import sys\n"
        "from deeptalk_jax.cli import run_tool\n"
        f"sys.modules[{module!r}] = None\n"
        "def tool():\n"
        "    import data_pipeline.synthetic_talk.espeak\n"
        "run_tool(tool)\n"
    )
    return run_command(tool)


def test_what_is_not_installed_ends_in_one_line(tmp_path):
    assert run_without("espeakng_loader", tmp_path) == (
        2,
        "",
        "error: the package espeakng_loader is not installed; it belongs to the extra [demo] of deeptalk_jax: "
        'pip install ".[demo]" in a clone of the repository\n',
    )
    assert advice(ModuleNotFoundError(name="deeptalk_jax.stages")) == (
        "deeptalk_jax.stages is not part of the wheel; run this in a clone of the repository with its extra [train]"
    )


def test_other_missing_modules_keep_their_traceback(tmp_path):
    done = run_without("ctypes", tmp_path)
    assert done.status == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
