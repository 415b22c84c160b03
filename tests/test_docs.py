"""What the pages say is checked without running it: commands, flags, config keys, links, names.

`.ci/doc_commands.py` runs the commands, by the rules of `.ci/doc_rules.py`.
"""

import ast
import fnmatch
import functools
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from deeptalk_jax.assembly.stage_table import STAGES

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = {row.config_file: row.config_module for row in STAGES.values()}
ROWS = {"none"}.union(*(module.ABLATIONS for module in CONFIGS.values()))
CODE_FOLDERS = ("benchmarks", "configs", "data_pipeline", "deeptalk_jax", "tests")
# Flags of other programs that pages mention.
OTHER_FLAGS = {"logdir"}
# Calls and files whose names look like keys.
NOT_KEYS = {"model.animate", "model.classify_emotion", "model.emotion", "model.emotions", "model.json"}
# Files that pages tell the reader to have, and that commands write.
NOT_IN_THE_TREE = re.compile(r"outputs/|flame_param/|/|~")


def load_rules():
    spec = importlib.util.spec_from_file_location("doc_rules", ROOT / ".ci" / "doc_rules.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = load_rules()
# Pages that describe the tree as it is; the recipes describe additions.
PAGES = tuple(page for page in RULES.PAGES if page != RULES.RECIPES)
COMMANDS = [command for page in PAGES for command in RULES.commands(page)]


def prose(page):
    """Text outside of fenced blocks."""
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.M | re.S)


def code_spans(page):
    """Inline code of a page."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def source_of(tool):
    """File of a script or module; `python -m PACKAGE` runs its __main__."""
    path = ROOT / (tool if tool.endswith(".py") else tool.replace(".", "/"))
    found = [file for file in (path, path.with_suffix(".py"), path / "__main__.py") if file.is_file()]
    assert found, f"{tool}: there is no such script or module"
    return found[0]


@functools.cache
def flags_of(tool):
    """Names of the flags of a tool: strings that its source passes on, of which those that define flags are some."""
    nodes = list(ast.walk(ast.parse(source_of(tool).read_text())))
    names = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    # A script that only calls the `main` of a tool has the flags of that tool.
    called = [
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.names[0].name == "main"
    ]
    return names.union(*map(flags_of, called))


@functools.cache
def config_keys(file, arg):
    """Keys of a config in dotted form."""
    config = CONFIGS[file].get_config(arg or None)

    def walk(section, prefix):
        for name, value in section.items():
            yield prefix + name
            if hasattr(value, "items"):
                yield from walk(value, f"{prefix}{name}.")

    return set(walk(config, ""))


ALL_KEYS = set().union(
    *(config_keys(file, f"variant={variant}") for file in CONFIGS for variant in ("mini", "base"))
)


def check_flags(tool, words):
    """The tool has the flags, its config file exists, and the config has the keys."""
    given = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    file, _, arg = given.get("config", "").partition(":")
    for name in given:
        section, _, key = name.partition(".")
        assert section in flags_of(tool), f"{tool} has no flag --{name}"
        if key:
            # Without --config, eval.py takes the config of the work directory, which may be of any stage.
            keys = config_keys(file, arg) if file else ALL_KEYS
            assert key in keys, f"{file}:{arg} has no key {key}"
    if "rows" in given:
        assert set(given["rows"].split(",")) <= ROWS, given["rows"]


@pytest.mark.parametrize("page", RULES.PAGES)
def test_shell_blocks_are_valid_shell(page):
    for block in RULES.blocks(page, "sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)


@pytest.mark.parametrize(
    "command", COMMANDS, ids=lambda command: " ".join((command.page, *command.words))[:80]
)
def test_commands_name_existing_tools_flags_and_config_keys(command):
    if command.is_foreign:
        # gcloud passes a whole command as one argument, sbatch the arguments of train.py.
        line = " ".join(command.words)
        for arguments in re.findall(r"(?:train\.py|gpus\.slurm) ([^>]*)", line):
            check_flags("train.py", arguments.split())
        for file in re.findall(r"(?<![\w./])(?:tests|launch|\.ci)/[\w./]+|\brequirements\.txt", line):
            assert (ROOT / file).exists(), f"{command.page}: {file}"
        return
    assert command.words[0] in (RULES.PYTHON, RULES.CONSOLE), command
    if command.tool:
        check_flags(command.tool, [*command.words[2:], *command.added_flags])
    else:
        compile(command.words[2], command.page, "exec")


def test_every_rule_is_used():
    assert {command.words[0] for command in COMMANDS if command.is_foreign} == set(RULES.FOREIGN)
    used = {command.added_flags for command in COMMANDS}
    assert used == {(), *RULES.ADDED_FLAGS.values()}
    used = {command.expected_error for command in COMMANDS}
    assert used == {None, *RULES.EXPECTED_ERRORS}
    for error in RULES.EXPECTED_ERRORS:
        assert error.reason


@pytest.mark.parametrize("page", RULES.PAGES)
def test_links_exist(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)#]+)\)", prose(page)):
        assert target.startswith("https://") or (folder / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page):
    for span in code_spans(page):
        name = span.partition(",")[0]
        if re.fullmatch(r"[\w./]+/\w+\.(py|md|yaml|slurm|txt)", name) and not NOT_IN_THE_TREE.match(name):
            assert (ROOT / name).exists() or (ROOT / "deeptalk_jax" / name).exists(), f"{page}: {name}"


@pytest.mark.parametrize("page", RULES.PAGES)
def test_named_modules_flags_and_keys_exist(page):
    every_flag = set(OTHER_FLAGS).union(*(flags_of(command.tool) for command in COMMANDS if command.tool))
    for span in code_spans(page):
        for module in re.findall(r"python -m ([\w.]+)", span):
            source_of(module)
        for flag in re.findall(r"--([a-z]\w*(?:\.[\w.]+)?)", span):
            section, _, key = flag.partition(".")
            assert section in every_flag, f"{page}: --{flag}"
            assert not key or any(name.startswith(key) for name in ALL_KEYS), f"{page}: --{flag}"
        for key in re.findall(
            r"^((?:augmentation|data|inference|loss|model|optimiser|pretrained)\.[\w.*]+)", span
        ):
            assert key in NOT_KEYS or fnmatch.filter(ALL_KEYS, key), f"{page}: config key {key}"


@pytest.mark.parametrize("page", PAGES)
def test_named_ablation_rows_exist(page):
    text = (ROOT / page).read_text()
    assert set(re.findall(r"ablation=(\w+)", text)) <= {*ROWS, "NAME"}
    # First cells of tables of results, which name rows, variants or overrides.
    for table in re.findall(r"^\| (?:row|training)? ?\|.*\n(?:\|.*\n)+", text, re.M):
        for line in table.splitlines()[2:]:
            for name in re.findall(r"`([\w.]+)[^`]*`", line.split("|")[1]):
                assert name in {*ROWS, *ALL_KEYS, "mini", "base"}, f"{page}: {name}"


def test_pictures_and_numbers_of_the_pages_are_shown():
    texts = "".join((ROOT / page).read_text() for page in RULES.PAGES)
    for file in (ROOT / "docs").iterdir():
        if file.suffix == ".png":
            assert f"{file.name})" in texts, f"no page shows {file.name}"
        elif file.suffix == ".json":
            assert file.with_suffix(".png").exists(), f"{file.name} has no picture beside it"


@pytest.mark.parametrize("page", RULES.PAGES)
def test_pages_name_no_local_paths(page):
    found = re.findall(r"(?<![\w.])/(?:work|tmp|root|home)/\S*|pypi\.org", (ROOT / page).read_text())
    assert not found


def test_the_readme_links_every_page():
    linked = set(re.findall(r"\]\(((?:docs/\w+|CONTRIBUTING)\.md)\)", (ROOT / "README.md").read_text()))
    assert linked == set(RULES.PAGES) - {"README.md"}


def test_pages_and_sections_that_code_cites_exist():
    text = (ROOT / "docs" / "method.md").read_text()
    sections = set(re.findall(r"^##+ (\d(?:\.\d)?)\.? ", text, re.M))
    assert {str(number) for number in range(10)} <= sections
    files = [file for folder in CODE_FOLDERS for file in (ROOT / folder).rglob("*.py")]
    for file in [*files, *ROOT.glob("*.py"), ROOT / "Makefile", *ROOT.glob("launch/*")]:
        code = file.read_text()
        for cited in re.findall(r"(?<![/\w])docs/\w+\.md", code):
            assert (ROOT / cited).is_file(), f"{file}: {cited}"
        for cited in re.findall(r"docs/method\.md,? sections? (\d(?:\.\d)?)", code):
            assert cited in sections, f"{file}: section {cited}"
