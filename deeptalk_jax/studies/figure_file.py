"""Output of a study: a chart as PNG, and its numbers in a JSON file beside it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole


def figure_path(out: str) -> Path:
    """Returns the path that a tool got as `--out`.

    Raises:
        UserError: the path does not end in .png.
    """
    path = Path(out)
    if path.suffix != ".png":
        raise UserError(f"--out={out}: expected a file name that ends in .png")
    return path


def write_figure(path: Path, report: dict[str, Any], draw: Callable[[dict[str, Any]], bytes]) -> None:
    """Writes a report as JSON, and its chart as PNG to `path`; each file appears whole or not at all.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_whole(path.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n")
        with replace_when_whole(path) as temporary:
            temporary.write_bytes(draw(report))
    except OSError as error:
        raise UserError(f"--out={path}: cannot be written ({error.strerror})") from error
