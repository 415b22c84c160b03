"""Page of an evaluation: one self-contained HTML file of numbers, charts and explanations."""

import base64
import html
from collections.abc import Mapping, Sequence

from deeptalk_jax.evaluation.result import Panel, Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
td, th { padding: .15em .8em; border-bottom: 1px solid #ddd; text-align: right; }
td:first-child, th:first-child { text-align: left; }
img { max-width: 100%; }
"""


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
