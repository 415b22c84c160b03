"""Chart of an ablation study: a dot for each seed and a bar for the mean of each row."""

from collections.abc import Sequence

from deeptalk_jax.rendering.figure import GREY, encode_png, new_figure, style_axes
from deeptalk_jax.studies.ablation.results import Result
from deeptalk_jax.studies.ablation.rows import PLAIN
from deeptalk_jax.studies.ablation.table import direction, summaries

_SEED_COLOUR, _MEAN_COLOUR = "#4c6a92", "#c8553d"
_PANEL_INCHES, _ROW_INCHES, _CHARACTER_INCHES = 2.6, 0.32, 0.085
_BETTER = {-1: "lower is better", 0: "", 1: "higher is better"}


def draw(results: Sequence[Result], metrics: Sequence[str], title: str) -> bytes:
    """Draws a panel per metric as a PNG; a grey line marks the mean of the row without an ablation.

    Args:
        results: finished runs, at least one.
        metrics: names of the metrics; at least one run has each of them.
        title: line above the panels.
    """
    table = summaries(results)
    rows = list(table)
    labels_inches = 0.3 + _CHARACTER_INCHES * max(len(row) for row in rows)
    width = max(labels_inches + _PANEL_INCHES * len(metrics), 0.3 + _CHARACTER_INCHES * len(title))
    figure = new_figure(width, 1.3 + _ROW_INCHES * len(rows))
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
            axis.axvline(table[PLAIN][metric].mean, color=GREY, lw=0.8, zorder=0)
        style_axes(axis, metric)
        axis.set_xlabel(_BETTER[direction(metric)], fontsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.grid(axis="y", color="#eeeeee")
        axis.set_axisbelow(True)
        axis.margins(x=0.12)
    figure.supxlabel(
        f"dot: one seed    bar: mean of the row    grey line: mean of the row {PLAIN!r}", fontsize=8
    )
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return encode_png(figure)
