"""An evaluation as one HTML file that needs no other: numbers, pictures and how to read them."""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
td, th { padding: .15em .8em; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; }
"""


class Table(NamedTuple):
    """A table of a page.

    Attributes:
        header: names of the columns.
        rows: a name, then a number (or text) per column; None leaves a cell empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


class Panel(NamedTuple):
    """A picture of an evaluation.

    Attributes:
        name: of its file.
        title: heading.
        text: how to read it, plain text.
        picture: a PNG file.
        table: numbers beside it, or None.
    """

    name: str
    title: str
    text: str
    picture: bytes
    table: Table | None = None


class Evaluation(NamedTuple):
    """What an evaluation found.

    Attributes:
        metrics: numbers that are compared between runs.
        details: what else is worth keeping: tables by class or group, as JSON has them.
        draw: pictures of it, drawn when asked for.
    """

    metrics: dict[str, float]
    details: dict[str, Any]
    draw: Callable[[], Sequence[Panel]]


def render_page(title: str, lead: str, metrics: Mapping[str, float], panels: Sequence[Panel]) -> str:
    """The page as HTML, pictures inside.

    Args:
        title: heading.
        lead: a line below it.
        metrics: numbers of the whole evaluation.
        panels: pictures, in order.
    """
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(lead)}</p>",
        _table(Table(("metric", "value"), list(metrics.items()))),
    ]
    for panel in panels:
        source = base64.b64encode(panel.picture).decode()
        parts += [
            f'<h2 id="{html.escape(panel.name)}">{html.escape(panel.title)}</h2>',
            f'<img alt="{html.escape(panel.title)}" src="data:image/png;base64,{source}">',
            f"<p>{html.escape(panel.text)}</p>",
            _table(panel.table) if panel.table else "",
        ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def _table(table: Table) -> str:
    lines = ["".join(f"<th>{html.escape(name)}</th>" for name in table.header)]
    lines += ["".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row) for row in table.rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.4g}"
