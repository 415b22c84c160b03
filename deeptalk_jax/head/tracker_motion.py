"""Motion coefficients as face trackers and other programs store them: names, widths, units and frame rates.

Trackers agree neither on names nor on widths: DECA and EMOCA write `exp` and a `pose` of six (global rotation, then
jaw), VHAP writes `expr` of 100 with `jaw_pose`, SMIRK `expression_params` with `jaw_params`. This is the only place
that knows about these differences; readers of files pass on their arrays.
"""

import zipfile
import zlib
from collections.abc import Collection, Mapping
from fractions import Fraction
from os import PathLike
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Float

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import BASIS_ARRAYS
from deeptalk_jax.types import EXPRESSION_DIM, JAW_POSE_DIM, MOTION_DIM, MOTION_RATE_HZ

# Names in the order of preference; the first one of each is that of our own files.
EXPRESSION_NAMES = ("expression", "exp", "expr", "expression_params", "expcode")
JAW_NAMES = ("jaw_pose", "jaw", "jaw_params", "jawpose", "pose")
RATE_NAME = "fps"
# All arrays that have a meaning here, for readers that pick them from larger files.
TRACKER_NAMES = (*EXPRESSION_NAMES, *JAW_NAMES, RATE_NAME, "head", *BASIS_ARRAYS.values())

_FLAME_EXPRESSION_DIM = 100  # directions of FLAME, of which the first 50 are used
_POSE_DIM = 2 * JAW_POSE_DIM
_LARGEST_ANGLE_RAD = np.pi
_RATES_HZ = (1.0, 1000.0)
_SAME_RATE_HZ = 1e-3


def tracker_motion(
    arrays: Mapping[str, np.ndarray], *, source: str | PathLike, rate_hz: float | None = None
) -> Float[np.ndarray, "t 53"]:
    """Returns the motion of arrays by name, at 25 frames per second.

    Args:
        arrays: expression, `[t, 50]` or `[t, 100]`, and jaw, `[t, 3]` or `[t, 6]`, axis-angle in radians, under any
            of `EXPRESSION_NAMES` and `JAW_NAMES`, perhaps with a leading axis of length 1; and `fps`, a number, an
            array of equal numbers or text. Other arrays are ignored.
        source: file or object that the arrays are from, for messages.
        rate_hz: frame rate if the arrays hold none.

    Returns:
        `[t, 53]` float32, t >= 1; expression, then jaw. Other rates are resampled to 25 frames per second.

    Raises:
        UserError: an array is missing, has another shape or type, is not finite or in degrees, the lengths differ, or
            the frame rate is not known.
    """
    parts = {}
    for names, columns in ((EXPRESSION_NAMES, expression_columns), (JAW_NAMES, jaw_columns)):
        name = find_name(arrays, names, source)
        array = np.asarray(arrays[name])
        if array.ndim == 3 and len(array) == 1:
            array = array[0]  # files of a batch of one clip
        parts[name] = columns(array, name, source)
    if RATE_NAME in arrays:
        rate_hz = frame_rate_hz(arrays[RATE_NAME], source)
    if rate_hz is None:
        raise UserError(
            f"{source}: holds no {RATE_NAME}, and few trackers store it; add an array {RATE_NAME} with the frames per "
            "second of the video"
        )
    (first, expression), (second, jaw_pose) = parts.items()
    if len(expression) != len(jaw_pose):
        lengths = (f"{name} {len(part)} frames ({len(part) / rate_hz:.2f} s)" for name, part in parts.items())
        raise UserError(
            f"{source}: {' and '.join(lengths)} at {rate_hz:g} frames per second; expected equal lengths"
        )
    check_values(expression, first, source)
    check_values(jaw_pose, second, source, are_angles=True)
    motion = np.concatenate([expression, jaw_pose], axis=-1).astype(np.float32)
    return at_motion_rate(checked_frames(motion, source), rate_hz)


def checked_frames(motion: np.ndarray, source: str | PathLike) -> np.ndarray:
    """Returns frames unchanged, after checking that they are `[t, 53]` floats with t >= 1.

    Raises:
        UserError: they are not.
    """
    if motion.ndim != 2 or motion.shape[1] != MOTION_DIM or not len(motion) or motion.dtype.kind != "f":
        raise UserError(
            f"{source}: expected frames [t, {MOTION_DIM}] of floats, got {motion.dtype} of shape {motion.shape}"
        )
    return motion


def find_name(arrays: Collection[str], names: Collection[str], source: str | PathLike) -> str:
    """Returns the first of several names that the arrays have.

    Raises:
        UserError: they have none.
    """
    found = next((name for name in names if name in arrays), None)
    if found is None:
        first, *others = names
        raise UserError(f"{source}: has no array {first!r}, nor {', '.join(others)}")
    return found


def expression_columns(array: np.ndarray, name: str, source: str | PathLike) -> Float[np.ndarray, "t 50"]:
    """Returns the 50 expression coefficients that are used, of `[t, 50]` or the 100 of FLAME.

    Raises:
        UserError: the array has another shape, or does not hold floats.
    """
    _check_shape(array, name, source, (EXPRESSION_DIM, _FLAME_EXPRESSION_DIM))
    if array.shape[1] > EXPRESSION_DIM:
        logging.warning(
            "%s: %s has %d coefficients per frame; the first %d are used",
            source,
            name,
            array.shape[1],
            EXPRESSION_DIM,
        )
    return array[:, :EXPRESSION_DIM]


def jaw_columns(array: np.ndarray, name: str, source: str | PathLike) -> Float[np.ndarray, "t 3"]:
    """Returns the rotation of the jaw, of `[t, 3]` or the last three columns of `[t, 6]`.

    Raises:
        UserError: the array has another shape, does not hold floats, or is the global rotation or a rotation matrix.
    """
    # Three columns called `pose` are the rotation of the whole head in most trackers.
    widths = (_POSE_DIM,) if name == "pose" else (JAW_POSE_DIM, _POSE_DIM)
    _check_shape(array, name, source, widths)
    if array.shape[1] == _POSE_DIM and len(array):
        first, second = array[:, :JAW_POSE_DIM], array[:, JAW_POSE_DIM:]
        lengths = np.linalg.norm([first, second], axis=-1)
        if np.allclose(lengths, 1.0, atol=1e-3) and np.allclose((first * second).sum(-1), 0.0, atol=1e-3):
            raise UserError(
                f"{source}: {name} holds two rows of a rotation matrix per frame (6D rotation); expected axis-angle in "
                "radians"
            )
    return array[:, -JAW_POSE_DIM:]


def _check_shape(array: np.ndarray, name: str, source: str | PathLike, widths: tuple[int, ...]) -> None:
    if array.ndim != 2 or array.shape[1] not in widths:
        expected = " or ".join(map(str, widths))
        raise UserError(f"{source}: {name} has shape {array.shape}, expected rows of {expected} numbers")
    if array.dtype.kind != "f":
        raise UserError(f"{source}: {name} holds {array.dtype}, expected floating-point numbers")


def check_values(
    values: np.ndarray, name: str, source: str | PathLike, *, are_angles: bool = False, row: str = "frame"
) -> None:
    """Checks that values `[t, n]` are finite, and that angles are in radians.

    Args:
        values: the values.
        name: name of the array, for messages.
        source: file that the values are from, for messages.
        are_angles: whether they are components of rotation vectors, which lie in [-pi, pi].
        row: word for a row in messages.

    Raises:
        UserError: names the first value that is not.
    """
    checks = [(~np.isfinite(values), "is not finite")]
    if are_angles:
        reason = "is out of range; expected radians in [-pi, pi] (are these degrees?)"
        checks.append((np.abs(values) > _LARGEST_ANGLE_RAD, reason))
    for bad, reason in checks:
        if bad.any():
            index, column = np.argwhere(bad)[0]
            raise UserError(f"{source}: {row} {index}, {name}[{column}]: {values[index, column]:g} {reason}")


def frame_rate_hz(value: np.ndarray | str | float, source: str | PathLike) -> float:
    """Returns a frame rate that is stored as a number, as an array of equal numbers, or as text such as `30000/1001`.

    Raises:
        UserError: the value is not one frame rate, or is not plausible.
    """
    values = np.unique(np.asarray(value))
    expected = f"expected one number of frames per second, {_RATES_HZ[0]:g} to {_RATES_HZ[1]:g}"
    try:
        (single,) = values.tolist()
        text = single.decode() if isinstance(single, bytes) else str(single)
        rate_hz = float(Fraction(text))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"{source}: {RATE_NAME} is {value!s:.60}, {expected}") from None
    if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
        raise UserError(f"{source}: {RATE_NAME} is {rate_hz:g}, {expected}")
    return rate_hz


def at_motion_rate(motion: Float[np.ndarray, "t 53"], rate_hz: float) -> Float[np.ndarray, "t2 53"]:
    """Interpolates motion to 25 frames per second; its length in seconds stays the same, to half a frame.

    Expression coefficients are interpolated linearly and the jaw along the shortest rotation. Frame i is at i / rate;
    after the last frame its values are held. Motion at 25 frames per second is returned unchanged.

    Args:
        motion: expression and jaw pose.
        rate_hz: frames per second of `motion`.
    """
    if abs(rate_hz - MOTION_RATE_HZ) < _SAME_RATE_HZ:
        return motion
    from scipy.spatial.transform import Rotation  # here, because most motions do not need it

    count = max(1, round(len(motion) * MOTION_RATE_HZ / rate_hz))
    places = np.minimum(np.arange(count) * rate_hz / MOTION_RATE_HZ, len(motion) - 1)
    before = np.floor(places).astype(int)
    after, share = np.minimum(before + 1, len(motion) - 1), (places - before)[:, None]
    expression, jaw_pose = np.split(motion.astype(np.float64), [EXPRESSION_DIM], axis=1)
    mixed = (1 - share) * expression[before] + share * expression[after]
    start, end = Rotation.from_rotvec(jaw_pose[before]), Rotation.from_rotvec(jaw_pose[after])
    turned = start * Rotation.from_rotvec(share * (start.inv() * end).as_rotvec())
    return np.concatenate([mixed, turned.as_rotvec()], axis=1).astype(np.float32)


def read_named_arrays(path: Path, names: Collection[str], *, expected: str) -> dict[str, np.ndarray]:
    """Reads those of the named arrays that a `.npz` file has, without pickle.

    Args:
        path: the file.
        names: names of arrays.
        expected: what the file should be, for messages.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file}
    except PermissionError as error:
        raise UserError(f"{path}: permission denied; make the file readable (chmod)") from error
    # RuntimeError: the zip container claims a password or an unknown compression.
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f"{path}: not {expected} ({error})") from error
