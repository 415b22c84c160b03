"""Result of an evaluation, and its page: one self-contained HTML file of numbers, charts and explanations."""

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
        rows: for each row a name, then a number or text per column; None leaves a cell empty.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str | float | None]]


class Panel(NamedTuple):
    """A chart of an evaluation.

    Attributes:
        name: name of the file, without ending.
        title: heading.
        text: explanation of the chart, plain text.
        picture: content of a PNG file.
        table: numbers below the chart, or None.
    """

    name: str
    title: str
    text: str
    picture: bytes
    table: Table | None = None


class Evaluation(NamedTuple):
    """Result of the evaluation of a stage.

    Attributes:
        metrics: numbers that are compared between runs, by name.
        details: further results that JSON can hold, such as tables by class or group.
        draw: draws the charts.
    """

    metrics: dict[str, float]
    details: dict[str, Any]
    draw: Callable[[], Sequence[Panel]]


def render_page(title: str, lead: str, metrics: Mapping[str, float], panels: Sequence[Panel]) -> str:
    """Returns the page as HTML with embedded charts.

    Args:
        title: heading.
        lead: line below the heading.
        metrics: numbers of the whole evaluation.
        panels: charts, in order.
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
