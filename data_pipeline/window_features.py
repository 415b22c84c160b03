"""Files of window features: outputs of frozen networks, computed once for every training window.

A directory holds the index `features.json` and one `features-*.array_record` file per process that wrote. The index is
written last, so a directory with an index is complete. Row `clip * windows_per_clip + number` belongs to fixed window
`number` of that clip (`loader.window_start`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole

INDEX = "features.json"


class WindowFeatures(Sequence[Mapping[str, np.ndarray]]):
    """Random access to the rows of a directory; each row is read from disk on demand.

    Args:
        directory: Directory that holds the index.
        key: Properties of the windows and weights that the features must have been computed from.

    Raises:
        UserError: The features were computed from other windows or weights, or a file is missing or damaged.
    """

    def __init__(self, directory: Path, key: Mapping[str, Any]):
        index = _read_index(directory)
        differing = sorted(name for name in key if index["key"].get(name) != key[name])
        if differing:
            raise UserError(
                f"{directory}: holds features of other windows or weights (differs in: {', '.join(differing)}); "
                "use another directory, or delete this one"
            )
        files = [directory / name for name in index["files"]]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise UserError(f"{directory}: {missing[0]} is missing; delete the directory and run again")
        self._source = grain.sources.ArrayRecordDataSource([str(file) for file in files])
        self._shapes = {name: tuple(shape) for name, shape in index["shapes"].items()}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        numbers = np.frombuffer(self._source[row], np.float32)
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes.values()])
        parts = np.split(numbers, ends[:-1])
        return {
            name: part.reshape(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)
        }


def has_features(directory: Path) -> bool:
    """Returns whether a directory is complete."""
    return (directory / INDEX).exists()


def write_rows(file: Path, batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, tuple[int, ...]]:
    """Writes rows to a file, which gets its final name when it is complete.

    Args:
        file: File to write.
        batches: Float arrays by name, `[b, ...]` each.

    Returns:
        The shape of each array in one row, by name.
    """
    shapes = {}
    file.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_whole(file) as temporary:
        # Without compression: decompressing a row takes several times as long as reading it, and floats hardly shrink.
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
        try:
            for batch in batches:
                arrays = {name: np.asarray(batch[name], np.float32) for name in sorted(batch)}
                shapes = {name: array.shape[1:] for name, array in arrays.items()}
                for row in zip(*arrays.values(), strict=True):
                    writer.write(b"".join(part.tobytes() for part in row))
        finally:
            writer.close()
    return shapes


def write_index(
    directory: Path, key: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], files: Sequence[str]
) -> None:
    """Writes the index, which completes a directory.

    Args:
        directory: Directory that holds the files.
        key: Properties of the windows and weights that the features were computed from.
        shapes: Shape of each array in one row, by name.
        files: Names of the files in the order of their rows.
    """
    index = {
        "key": dict(key),
        "shapes": {name: list(shape) for name, shape in shapes.items()},
        "files": files,
    }
    with replace_when_whole(directory / INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=2) + "\n")


def _read_index(directory: Path) -> dict[str, Any]:
    try:
        return json.loads((directory / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / INDEX}: cannot be read ({error})") from error
