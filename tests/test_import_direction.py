"""Imports go in one direction: from each layer of the table below only to lower layers.

Imports inside functions count as well. The names of stage classes in `assembly/stage_table.py` are strings, which are
loaded on demand and not counted.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# From the top down. A name is a folder of the repository or of deeptalk_jax, a module of deeptalk_jax, or a script.
LAYERS = (
    {"infer", "__main__"},
    {"train", "eval", "tools", "studies", "benchmarks"},
    {"stages", "inference"},
    {"evaluation", "assembly", "interop", "rendering"},
    {"training", "losses", "metrics", "data_pipeline"},
    {"models", "head"},
    {"configs", "cli", "collectives", "masks"},
    {"signals"},
    {"types", "errors", "extras", "files", "progress"},
)
# The only imports within a layer.
SIDEWAYS = {
    ("evaluation", "rendering"),  # figures and their colours
    ("interop", "assembly"),  # an imported model is saved as a model directory
}
# The only imports upwards, with the reason.
EXCEPTIONS = {
    (
        "deeptalk_jax/__init__.py",
        "inference",
    ): "public face: `from deeptalk_jax import DeepTalk`, loaded on demand",
}


def _place(module):
    """Returns the name in LAYERS of `deeptalk_jax.losses.motion`: `losses`; None for modules from outside."""
    first, *rest = module.split(".")
    if first == "deeptalk_jax":
        return rest[0] if rest else "__init__"
    return first if any(first in layer for layer in LAYERS) and (ROOT / first).is_dir() else None


def _sources():
    for file in sorted(ROOT.glob("*.py")):
        yield file, file.stem
    for folder in ("deeptalk_jax", "data_pipeline", "configs", "benchmarks"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file, _place(".".join(file.relative_to(ROOT).with_suffix("").parts))


def _imported(file):
    """Yields the absolute names of all modules that a file imports, at any depth of its code."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import; expected an absolute one"
            # `from deeptalk_jax import losses` imports a module of the package.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_folder_has_a_layer():
    named = {place for _, place in _sources()} - {"__init__"}
    assert named == set().union(*LAYERS)
    assert sum(map(len, LAYERS)) == len(named), "a folder is in two layers"


def test_imports_go_down():
    level = {name: number for number, layer in enumerate(LAYERS) for name in layer} | {
        "__init__": len(LAYERS)
    }
    wrong, used = [], set()
    for file, source in _sources():
        for module in _imported(file):
            target = _place(module)
            if target in (None, source) or target not in level or level[target] > level[source]:
                continue
            path = file.relative_to(ROOT).as_posix()
            rule = (source, target) if (source, target) in SIDEWAYS else (path, target)
            used.add(rule)
            if rule not in SIDEWAYS and rule not in EXCEPTIONS:
                wrong.append(f"{path} imports {module}")
    assert not wrong, "\n".join(wrong)
    assert used == SIDEWAYS | EXCEPTIONS.keys(), "an exception is no longer needed"
