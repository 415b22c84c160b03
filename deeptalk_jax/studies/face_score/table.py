"""Text table of a face score."""

from collections.abc import Iterator, Mapping
from typing import Any

from deeptalk_jax.types import NUM_INTENSITIES

_FIRST, _CELL = 28, 12


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of the table: gain (cosine) by emotion, and the measures of each motion.

    Args:
        report: result of `measure.score_model`.
    """
    emotions = dict.fromkeys(emotion for table in report["gain"].values() for emotion in table)
    yield _line("gain (cosine) at intensity", emotions)
    for source, table in report["gain"].items():
        for level in reversed(range(NUM_INTENSITIES)):
            rows = [table.get(emotion, {}) for emotion in emotions]
            found = [(row["gain"][level], row["cosine"][level]) if row else (None, None) for row in rows]
            cells = ["" if gain is None else f"{gain:.2f}({cosine:4.2f})" for gain, cosine in found]
            gains = [gain for gain, _ in found if gain is not None]
            mean = f"   mean {sum(gains) / len(gains):.2f}" if gains else ""
            yield _line(f"{source} {level + 1}", cells) + mean
    if "named" in report["gain"]:
        rising = (f"{row['rising'][0]:.2f}" for row in report["gain"]["named"].values())
        yield _line("named: rises with intensity", rising)
    motions = report["motions"]
    yield _line("", motions)
    for key in dict.fromkeys(key for measures in motions.values() for key in measures):
        yield _line(key, (f"{measures[key]:.3f}" if key in measures else "" for measures in motions.values()))


def _line(first, cells) -> str:
    return f"{first:{_FIRST}s}" + "".join(f"{cell:>{_CELL}s}" for cell in cells)
