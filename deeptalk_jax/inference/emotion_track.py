"""Emotion that changes over a clip: rows at given seconds, interpolated linearly between them.

A CSV file has one of two headers. Either it has one column of weights per emotion, where an empty cell is 0 and neutral
fills a row up to a sum of 1; or it gives one emotion and its intensity per row:

    seconds,happy,surprised@2          seconds,emotion,intensity
    0.0,0,0                            0.0,neutral,0
    1.5,0.8,0.2                        1.5,happy,3

Spreadsheets of many countries write `;` between cells and a comma in numbers (`1,5;0,8`). A file with a `;` in its
header is read as such. Names may be in any case. Empty columns at the end and empty rows are ignored.
"""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.emotion_blend import Emotion, EmotionTable, Moments, parse_emotion
from deeptalk_jax.types import MOTION_RATE_HZ, Gaussian

# Time in seconds, and a blend of named emotions (text, or weights by name) or a Gaussian `[d]`.
TrackRow = tuple[float, str | Mapping[str, float] | Gaussian]


class EmotionTrack:
    """Emotion over time. It is constant before the first row and after the last.

    Args:
        seconds: times of the rows, increasing.
        rows: moments `[d]` of every row.
    """

    def __init__(self, seconds: Sequence[float], rows: Sequence[Moments]):
        self._seconds = np.float64(seconds)
        self._moments = Moments(*(np.stack(arrays) for arrays in zip(*rows, strict=True)))

    def frames(self, first_frame: int, num_frames: int) -> Gaussian:
        """Returns the Gaussians `[t, d]` of a stretch of frames, each at the middle of its frame."""
        seconds = (np.arange(first_frame, first_frame + num_frames) + 0.5) / MOTION_RATE_HZ
        after = np.searchsorted(self._seconds, seconds)
        left = np.clip(after - 1, 0, len(self._seconds) - 1)
        right = np.minimum(after, len(self._seconds) - 1)
        span = np.maximum(self._seconds[right] - self._seconds[left], 1e-9)
        share = np.clip((seconds - self._seconds[left]) / span, 0.0, 1.0)[:, None]
        return Moments(
            *((1.0 - share) * array[left] + share * array[right] for array in self._moments)
        ).gaussian()


def track_of_rows(rows: Sequence[tuple[float, Moments]]) -> EmotionTrack:
    """Builds a track from times and moments.

    Raises:
        UserError: there are no rows, or the times are not finite or not increasing.
    """
    if not rows:
        raise UserError("the emotion track has no rows")
    seconds = [float(second) for second, _ in rows]
    if not all(map(math.isfinite, seconds)) or any(one >= other for one, other in pairwise(seconds)):
        raise UserError(f"the seconds of the emotion track must be finite and increasing, got {seconds}")
    return EmotionTrack(seconds, [moments for _, moments in rows])


def read_track(path: str | os.PathLike, table: EmotionTable) -> EmotionTrack:
    """Reads a track from a CSV file.

    Raises:
        UserError: the file cannot be used; the message names file, line and value.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = _read_cells(file)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if len(lines) < 2:
        raise UserError(f"{path}: expected a header with the names of the columns, and rows below it")
    return _Reader(Path(path), lines[0], table).track(lines[1:])


def _read_cells(file: TextIO) -> list[tuple[list[str], int]]:
    """Returns the cells and the line number of every row that is not empty, without trailing empty columns.

    In a file with `;` between cells, commas are decimal commas and become points.
    """
    text = file.read()
    semicolons = ";" in next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=";" if semicolons else ",")
    rows = [([cell.strip() for cell in row], reader.line_num) for row in reader]
    rows = [(row, line) for row, line in rows if any(row)]
    num_columns = _length(rows[0][0]) if rows else 0
    rows = [(row[: max(num_columns, _length(row))], line) for row, line in rows]
    if semicolons:
        rows = [([cell.replace(",", ".") for cell in row], line) for row, line in rows]
    return rows


def _length(row: Sequence[str]) -> int:
    """Returns the number of cells up to the last one that is not empty."""
    return max((number for number, cell in enumerate(row, 1) if cell), default=0)


class _Reader:
    """Reads the rows of a track file.

    Args:
        path: path of the file, for errors.
        header: names of the columns, and the number of their line.
        table: moments of the named emotions.
    """

    def __init__(self, path: Path, header: tuple[list[str], int], table: EmotionTable):
        self._path, self._table = path, table
        columns, line = header
        self._columns = [column.lower() for column in columns]
        if self._columns[0] != "seconds" or len(columns) < 2:
            raise self._error(line, f"columns {columns} must begin with 'seconds', then emotions")
        self._by_name = self._columns[1:] == ["emotion", "intensity"]
        if not self._by_name:
            self._emotions = [self._located(line, parse_emotion, name) for name in self._columns[1:]]

    def track(self, lines: Sequence[tuple[list[str], int]]) -> EmotionTrack:
        """Reads all rows, given as cells and line number."""
        seconds, rows = [], []
        for cells, line in lines:
            if len(cells) != len(self._columns):
                raise self._error(line, f"{len(cells)} cells, expected {len(self._columns)}")
            second = self._number(line, "seconds", cells[0])
            if seconds and second <= seconds[-1]:
                raise self._error(line, f"seconds {cells[0]!r} must be above those of the previous row")
            seconds.append(second)
            rows.append(self._located(line, self._table.moments, self._blend(line, cells[1:])))
        return EmotionTrack(seconds, rows)

    def _blend(self, line: int, cells: list[str]) -> list[tuple[Emotion, float]]:
        if self._by_name:
            return [(self._located(line, parse_emotion, "@".join(cells)), 1.0)]
        weights = [
            self._number(line, name, cell or "0") for name, cell in zip(self._columns[1:], cells, strict=True)
        ]
        return list(zip(self._emotions, weights, strict=True))

    def _number(self, line: int, column: str, cell: str) -> float:
        try:
            number = float(cell)
        except ValueError:
            number = math.nan
        if not (0 <= number < math.inf):
            raise self._error(line, f"{column} {cell!r} is not a number, 0 or above")
        return number

    def _located(self, line: int, function, *arguments):
        try:
            return function(*arguments)
        except UserError as error:
            raise self._error(line, str(error)) from error

    def _error(self, line: int, message: str) -> UserError:
        return UserError(f"{self._path}, line {line}: {message}")
