"""Result of the evaluation of a stage: metrics, details, and charts that are drawn on demand."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


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
