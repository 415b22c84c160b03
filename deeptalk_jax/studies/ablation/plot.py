"""A picture of an ablation study: every seed as a dot, the mean of every row beside them."""

import io
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from deeptalk_jax.studies.ablation.results import Result
from deeptalk_jax.studies.ablation.rows import PLAIN
from deeptalk_jax.studies.ablation.table import direction, summaries

_SEED_COLOUR, _MEAN_COLOUR, _PLAIN_COLOUR = "#4c6a92", "#c8553d", "#888888"
_PANEL_INCHES, _ROW_INCHES, _CHARACTER_INCHES = 2.6, 0.32, 0.085
_BETTER = {-1: "lower is better", 0: "", 1: "higher is better"}


def draw(results: Sequence[Result], metrics: Sequence[str], title: str) -> bytes:
    """A PNG with a panel for every metric; a grey line marks the mean of the row without an ablation.

    Args:
        results: finished runs, at least one.
        metrics: which, each given by at least one run.
        title: line above the panels.
    """
    table = summaries(results)
    rows = list(table)
    labels_inches = 0.3 + _CHARACTER_INCHES * max(len(row) for row in rows)
    width = max(labels_inches + _PANEL_INCHES * len(metrics), 0.3 + _CHARACTER_INCHES * len(title))
    figure = Figure(
        figsize=(width, 1.3 + _ROW_INCHES * len(rows)), dpi=130, facecolor="white", layout="constrained"
    )
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        for place, row in enumerate(rows):
            if metric not in table[row]:
                continue
            values = table[row][metric].values
            axis.plot(table[row][metric].mean, place, "|", color=_MEAN_COLOUR, ms=13, mew=2.2)
            axis.plot(values, [place] * len(values), "o", color=_SEED_COLOUR, alpha=0.6, ms=4.5, mew=0)
        if metric in table.get(PLAIN, {}):
            axis.axvline(table[PLAIN][metric].mean, color=_PLAIN_COLOUR, lw=0.8, zorder=0)
        axis.set_title(metric, fontsize=9)
        axis.set_xlabel(_BETTER[direction(metric)], fontsize=8)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.grid(axis="y", color="#eeeeee")
        axis.set_axisbelow(True)
        axis.margins(x=0.12)
        for spine in ("top", "right"):
            axis.spines[spine].set_visible(False)
    figure.supxlabel(f"dot: a seed    bar: mean of a row    grey line: mean of the row {PLAIN!r}", fontsize=8)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()
