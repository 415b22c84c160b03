"""Labelled single frames of FLAME parameters, read from `.npz` or `.csv` files, and their batches.

The published FER classifier is trained on single pictures (FLAME fits of AffectNet) and not on clips, so its stage can
read them from a file (docs/method.md, section 1). An `.npz` file holds three arrays, named by `FrameKeys`:

    expression   [n, 50] or [n, 100]   FLAME expression coefficients, of which the first 50 are used
    jaw_pose     [n, 3] or [n, 6]      axis-angle in radians; of six columns the last three are used, because EMOCA's
                                       pose is the global rotation followed by the jaw
    emotion      [n]                   names or numbers of `types.EMOTIONS`, which has AffectNet's order

Where the default names of expression and jaw are missing, those of trackers are tried (`head/tracker_motion.py`). The
arrays that record a basis in motion files may be there, too.

A `.csv` file has a header with the columns `expression_0` to `expression_49`, `jaw_pose_0` to `jaw_pose_2` and
`emotion`, in any order; `FrameKeys` names the parts before the numbers. Other arrays and columns are ignored. Pickled
objects are refused.
"""

import csv
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grain
import numpy as np

from data_pipeline.process_rows import process_rows
from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.head.basis import BASIS_ARRAYS, Basis, basis_of_arrays
from deeptalk_jax.head.tracker_motion import (
    EXPRESSION_NAMES,
    JAW_NAMES,
    check_values,
    expression_columns,
    jaw_columns,
    read_named_arrays,
)
from deeptalk_jax.types import EMOTIONS, EXPRESSION_DIM, JAW_POSE_DIM

# AffectNet's names of the emotions for which `types.EMOTIONS` uses another word.
_SYNONYMS = {
    "happiness": "happy",
    "sadness": "sad",
    "surprise": "surprised",
    "disgust": "disgusted",
    "anger": "angry",
}
_NUMBERS = {
    name: number
    for number, emotion in enumerate(EMOTIONS)
    for name in (emotion, str(number), *(other for other, own in _SYNONYMS.items() if own == emotion))
}
SPLIT_FIELD = "{split}"


class FrameKeys(NamedTuple):
    """Names of the arrays of an `.npz` file, or of the columns of a `.csv` file without their `_0`, `_1`, ...

    Attributes:
        expression: Name of the FLAME expression coefficients.
        jaw_pose: Name of the jaw rotation.
        emotion: Name of the label.
    """

    expression: str = "expression"
    jaw_pose: str = "jaw_pose"
    emotion: str = "emotion"


class Frames(NamedTuple):
    """Labelled frames.

    Attributes:
        motion: `[n, 53]` float32; 50 expression coefficients, then the jaw's axis-angle in radians.
        emotion: `[n]` int32 indices into `types.EMOTIONS`.
    """

    motion: np.ndarray
    emotion: np.ndarray


def read_frames(path: str | Path, keys: FrameKeys) -> Frames:
    """Reads and checks a file of labelled frames.

    Args:
        path: An `.npz` or `.csv` file; the module docstring describes both layouts.
        keys: Names of its arrays or columns.

    Raises:
        UserError: The file cannot be read, lacks an array or column, or holds an invalid value. The message names the
            file, the row (from 0, without the header of a csv) and the value.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path}: expected a file of labelled frames that ends in {' or '.join(readers)}")
    try:
        expression, jaw_pose, labels = readers[path.suffix.lower()](path, keys)
    except (OSError, zipfile.BadZipFile, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    num_frames = len(labels)
    if not num_frames:
        raise UserError(f"{path}: holds no frames; expected at least one")
    if len(jaw_pose) != num_frames or len(expression) != num_frames:
        raise UserError(
            f"{path}: {len(expression)} rows of {keys.expression}, {len(jaw_pose)} of {keys.jaw_pose} and "
            f"{num_frames} of {keys.emotion}; expected equal numbers"
        )
    check_values(expression, keys.expression, path, row="row")
    check_values(jaw_pose, keys.jaw_pose, path, are_angles=True, row="row")
    emotion = np.array([_class(path, row, label) for row, label in enumerate(labels)], np.int32)
    return Frames(np.concatenate([expression, jaw_pose], axis=1).astype(np.float32), emotion)


def frames_basis(path: str | Path) -> Basis | None:
    """Returns what the coefficients of a file of labelled frames stand for; None if it does not record it.

    Raises:
        UserError: The file is missing or damaged.
    """
    path, expected = Path(path), "a file of labelled frames"
    if path.suffix.lower() != ".npz":
        return None
    try:
        return basis_of_arrays(read_named_arrays(path, BASIS_ARRAYS.values(), expected=expected))
    except ValueError as error:
        raise UserError(f"{path}: not {expected} ({error})") from error


def split_file(pattern: str, split: str) -> Path:
    """Returns the file of a split: the pattern with `{split}` replaced by the name of the split.

    Raises:
        ConfigError: The pattern lacks `{split}`, so that all splits would read the same frames.
    """
    if SPLIT_FIELD not in pattern:
        raise ConfigError(
            f"data.frames_file={pattern!r}: expected {SPLIT_FIELD} in place of train, validation or test"
        )
    return Path(pattern.replace(SPLIT_FIELD, split))


def frame_counts(frames: Frames) -> np.ndarray:
    """Returns the number of frames of each emotion, `[8]`, in the order of `types.EMOTIONS`."""
    return np.bincount(frames.emotion, minlength=len(EMOTIONS))


def frame_loader(
    frames: Frames,
    *,
    batch_size: int,
    seed: int,
    num_processes: int = 1,
    process_index: int = 0,
    num_threads: int = 0,
) -> grain.DatasetIterator:
    """Returns endless batches; each epoch has every frame once, in a new order.

    A frame is a clip of length 1. Processes share each global batch as described in `process_rows`.

    Args:
        frames: Frames to draw from.
        batch_size: Rows of a global batch, over all processes.
        seed: Seed of the order.
        num_processes: Number of processes that share each batch.
        process_index: Index of this process.
        num_threads: Reader threads; 0 reads in the calling thread.

    Returns:
        A resumable iterator of dicts with motion `[b, 1, 53]`, emotion `[b]` and num_frames `[b]` (always 1), where
        `b = batch_size / num_processes`.

    Raises:
        UserError: The processes cannot share the batch evenly.
    """
    rows = grain.MapDataset.source(_Rows(frames)).seed(seed).shuffle().repeat()
    share = process_rows(rows, batch_size, num_processes, process_index)
    batches = share.batch(batch_size // num_processes, drop_remainder=True)
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=8)))


def frames_in_order(frames: Frames, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of all frames in their order, each frame once.

    The keys are those of `frame_loader`, and valid (`[b]` bool). The last batch is filled up with padding rows, which
    have num_frames 0, label -1 and valid false.

    Args:
        frames: Frames to go through.
        batch_size: Rows of every batch.
    """
    for start in range(0, len(frames.emotion), batch_size):
        motion, emotion = (values[start : start + batch_size] for values in frames)
        missing = (0, batch_size - len(emotion))
        yield {
            "motion": np.pad(motion, (missing, (0, 0)))[:, None],
            "emotion": np.pad(emotion, missing, constant_values=-1),
            "num_frames": np.pad(np.ones(len(emotion), np.int32), missing),
            "valid": np.arange(batch_size) < len(emotion),
        }


class _Rows(Sequence[dict[str, np.ndarray]]):
    """Random access to frames as elements of a grain dataset."""

    def __init__(self, frames: Frames):
        self._frames = frames

    def __len__(self) -> int:
        return len(self._frames.emotion)

    def __getitem__(self, index: int) -> dict[str, Any]:
        motion, emotion = (values[index] for values in self._frames)
        return {"motion": motion[None], "emotion": emotion, "num_frames": np.int32(1)}


def _read_npz(path: Path, keys: FrameKeys) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads expression `[n, 50]`, jaw pose `[n, 3]` and labels `[n]`."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise UserError(f"{path}: is a single array; expected an npz archive")
        with archive:
            wanted = {*keys, *EXPRESSION_NAMES, *JAW_NAMES}
            arrays = {key: archive[key] for key in archive.files if key in wanted}
            held = ", ".join(archive.files) or "nothing"
    except UserError:
        raise
    except ValueError as error:  # NumPy raises it for an array of objects, which only unpickling could read
        raise UserError(f"{path}: cannot be read ({error})") from error
    others = {"expression": EXPRESSION_NAMES, "jaw_pose": JAW_NAMES}  # for the default names only
    names = [next((name for name in others.get(key, [key]) if name in arrays), key) for key in keys]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise UserError(f"{path}: has no array {missing[0]!r}; found: {held}")
    expression, jaw_pose, labels = (arrays[name] for name in names)
    if labels.ndim != 1:
        raise UserError(f"{path}: {keys.emotion} has shape {labels.shape}, expected [n]")
    return expression_columns(expression, names[0], path), jaw_columns(jaw_pose, names[1], path), labels


def _read_csv(path: Path, keys: FrameKeys) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Reads expression `[n, 50]`, jaw pose `[n, 3]` and the texts of the labels."""
    columns = [f"{keys.expression}_{index}" for index in range(EXPRESSION_DIM)]
    columns += [f"{keys.jaw_pose}_{index}" for index in range(JAW_POSE_DIM)]
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        missing = [name for name in (*columns, keys.emotion) if name not in (rows.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path}: has no column {missing[0]!r}; {len(missing)} columns are missing in all"
            )
        values, labels = [], []
        for number, row in enumerate(rows):
            values.append([_number(path, number, name, row[name]) for name in columns])
            labels.append(row[keys.emotion])
    table = np.array(values).reshape(-1, len(columns))
    return table[:, :EXPRESSION_DIM], table[:, EXPRESSION_DIM:], labels


def _number(path: Path, row: int, column: str, text: str | None) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):  # the text is None where the row has too few fields
        raise UserError(f"{path}: row {row}, column {column}: {text!r}; expected a number") from None


def _class(path: Path, row: int, label: Any) -> int:
    number = _NUMBERS.get(str(label).strip().lower())
    if number is None:
        raise UserError(
            f"{path}: row {row}: unknown emotion {str(label)!r}; expected one of: "
            + ", ".join(f"{index} {name}" for index, name in enumerate(EMOTIONS))
        )
    return number
