"""`Motion`: the facial motion of one clip, which inference returns, and its files.

A motion is saved as `.npz` (coefficients, codes and their origin) or `.mp4` (the rendered head with its sound).
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.head.basis import BASIS_ARRAYS, PROCEDURAL, Basis, basis_of_arrays, check_basis
from deeptalk_jax.head.lazy import LazyHead
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.head.tracker_motion import (
    TRACKER_NAMES,
    check_values,
    checked_frames,
    frame_rate_hz,
    read_named_arrays,
    tracker_motion,
)
from deeptalk_jax.inference.audio import read_original
from deeptalk_jax.inference.provenance import Provenance, channel_names
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE
from deeptalk_jax.types import (
    AUDIO_RATE_HZ,
    EXPRESSION_DIM,
    JAW_POSE_DIM,
    MOTION_RATE_HZ,
    SAMPLES_PER_FRAME,
)

FORMATS = ("npz", "mp4")
_BLOCK_FRAMES = 64
_EXPECTED = "a motion file of infer.py"
_OWN_ARRAYS = ("expression", "jaw_pose", "fps", "indices_top", "indices_bottom")
_COMPARED = ("expression", "jaw_pose", "indices_top", "indices_bottom", "fps")


@dataclass(frozen=True, eq=False, repr=False)
class Motion:
    """Facial motion of one clip.

    Two motions are equal if their coefficients, codes and frame rate are equal; sound, head and origin are not
    compared. Motions are not hashable, because their arrays can be changed. A pickle names the head but does not hold
    it.

    Attributes:
        expression: `[t, 50]` expression coefficients.
        jaw_pose: `[t, 3]` jaw rotation, axis-angle in radians.
        indices_top: `[ceil(t / 4)]` indices of the top codes.
        indices_bottom: `[ceil(t / 2)]` indices of the bottom codes.
        waveform: `[s]` float32 sound at 16 kHz; empty for a motion that was read from a file.
        load_head: returns the head of the model; a `LazyHead`, because building the embedded head takes longer than
            animating a short clip. None if the head is not known.
        fps: frames per second.
        provenance: model and settings that made the motion; None if they are not known.
        sound_file: file of the sound, with its own rate and channels; None if the sound was given as samples.
    """

    expression: np.ndarray
    jaw_pose: np.ndarray
    indices_top: np.ndarray
    indices_bottom: np.ndarray
    waveform: np.ndarray
    load_head: Callable[[], HeadModel] | None
    fps: int = MOTION_RATE_HZ
    provenance: Provenance | None = None
    sound_file: Path | None = None

    # Without this, `motion[0]` being an error would still make the object look like a sequence to `iter`.
    __iter__ = None

    @classmethod
    def load(cls, path: str | os.PathLike, *, head: str | None = None) -> "Motion":
        """Reads a `.npz` file of `save`, also one of an earlier version, which has no origin.

        The file holds no sound, so `waveform` is empty.

        Args:
            path: the file.
            head: head to show the motion on, as `load_head` takes it; by default the head that the file names.

        Raises:
            UserError: the file is missing or not a motion.
        """
        names = (*_OWN_ARRAYS, *Provenance.names(), *BASIS_ARRAYS.values())
        arrays = read_named_arrays(Path(path), names, expected=_EXPECTED)
        missing = [name for name in _OWN_ARRAYS if name not in arrays]
        if missing:
            raise UserError(f"{path}: not {_EXPECTED} (it has no array {missing[0]})")
        if frame_rate_hz(arrays["fps"], path) != MOTION_RATE_HZ:
            raise UserError(f"{path}: fps is {arrays['fps']}, expected {MOTION_RATE_HZ}")
        expression, jaw_pose = arrays["expression"], arrays["jaw_pose"]
        if expression.ndim != 2 or jaw_pose.shape != (len(expression), JAW_POSE_DIM):
            shapes = f"expression {expression.shape} and jaw_pose {jaw_pose.shape}"
            raise UserError(f"{path}: {shapes} do not have the shapes of one motion")
        frames = checked_frames(np.concatenate([expression, jaw_pose], axis=-1), path)
        check_values(frames, "frames", path)
        expression, jaw_pose = split_motion(frames.astype(np.float32, copy=False))
        for name in ("indices_top", "indices_bottom"):
            if arrays[name].ndim != 1 or arrays[name].dtype.kind not in "iu":
                found = f"{arrays[name].dtype} of shape {arrays[name].shape}"
                raise UserError(f"{path}: {name} is {found}, expected integers of one axis")
        try:
            provenance = Provenance.from_arrays(arrays)
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: not {_EXPECTED} ({error})") from error
        reference = head or (provenance and provenance.head)
        return cls(
            expression=expression.copy(),
            jaw_pose=jaw_pose.copy(),
            indices_top=arrays["indices_top"],
            indices_bottom=arrays["indices_bottom"],
            waveform=np.zeros(0, np.float32),
            load_head=LazyHead(reference) if reference else None,
            provenance=provenance,
        )

    def __len__(self) -> int:
        return len(self.expression)

    def __repr__(self) -> str:
        reference = getattr(self.load_head, "reference", None)
        head = f", {reference}" if reference else ""
        return f"Motion({len(self)} frames, {self.duration_s:.2f} s, {self.fps} fps{head})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Motion):
            return NotImplemented
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in _COMPARED)

    def __getitem__(self, frames: slice) -> "Motion":
        """Cuts out frames, with their sound and their codes.

        A code is kept if it covers at least one of the frames. A top code covers 4 frames and a bottom code 2, so a
        cut inside a code keeps the whole code, and a slice that does not start at a multiple of 4 may hold one code
        more than `ceil(t / 4)`.

        Raises:
            UserError: `frames` is not a slice with step 1, or holds no frame.
        """
        if not isinstance(frames, slice) or frames.step not in (None, 1):
            raise UserError(
                f"motion[{frames}]: expected frames first:last; single frames are in motion.frames()"
            )
        start, stop, _ = frames.indices(len(self))
        if start >= stop:
            raise UserError(f"motion[{frames.start}:{frames.stop}]: holds none of the {len(self)} frames")

        def codes(indices: np.ndarray, size: int) -> np.ndarray:
            return indices[start // size : -(-stop // size)].copy()

        return replace(
            self,
            expression=self.expression[start:stop].copy(),
            jaw_pose=self.jaw_pose[start:stop].copy(),
            indices_top=codes(self.indices_top, FRAMES_PER_TOP_CODE),
            indices_bottom=codes(self.indices_bottom, FRAMES_PER_BOTTOM_CODE),
            waveform=self.waveform[start * SAMPLES_PER_FRAME : stop * SAMPLES_PER_FRAME].copy(),
            sound_file=None,  # the file holds the sound of all frames
        )

    @property
    def duration_s(self) -> float:
        """Length in seconds: the number of frames by the frame rate."""
        return len(self) / self.fps

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the 53 channels of `frames`, see `provenance.channel_names`."""
        return channel_names(self.basis)

    @property
    def basis(self) -> Basis | None:
        """What the coefficients stand for, see `head.basis`; None if it is not known."""
        return self.provenance.known_basis if self.provenance else None

    @property
    def head(self) -> HeadModel:
        """The head that the motion was generated for.

        Raises:
            UserError: the head is not known, cannot be loaded, or has another basis than the motion.
        """
        if self.load_head is None:
            raise UserError(
                "this motion names no head; give one, as in DeepTalk.load(directory, head=FILE) or "
                f"Motion.load(path, head={PROCEDURAL!r}) for the embedded head"
            )
        head = self.load_head()
        source, advice = f"head {head.name}", "show it on the head that its model was trained for"
        check_basis(head.basis, self.basis, source=source, other="the motion", advice=advice)
        return head

    def frames(self) -> np.ndarray:
        """Concatenates expression and jaw pose to `[t, 53]`."""
        return np.concatenate([self.expression, self.jaw_pose], axis=-1)

    def vertices(self) -> np.ndarray:
        """Computes the vertices of the head, `[t, v, 3]` in metres."""
        frames = self.frames()
        blocks = range(0, len(frames), _BLOCK_FRAMES)
        return np.concatenate([self._block_vertices(frames, start) for start in blocks])

    def _block_vertices(self, frames: np.ndarray, start: int) -> np.ndarray:
        block = frames[start : start + _BLOCK_FRAMES]
        padded = np.pad(block, ((0, _BLOCK_FRAMES - len(block)), (0, 0)))  # so that one shape is compiled
        return np.asarray(motion_vertices(self.head, padded))[: len(block)]

    def save(self, path: str | os.PathLike | BinaryIO) -> None:
        """Writes the motion to a file, whole or not at all; the extension selects the format, in any case.

        `.npz` holds coefficients, codes and origin, see docs/motion_file.md; `.mp4` is a video of the rendered head
        with its sound, which keeps the rate and channels of a sound file.

        Args:
            path: the file, or a binary file object, which gets the `.npz` format.

        Raises:
            UserError: the extension is unknown, or the file cannot be written.
        """
        if hasattr(path, "write"):
            self._write_npz(path)
            return
        kind = Path(path).suffix.lstrip(".").lower()
        if kind not in FORMATS:
            raise UserError(f"{path}: motion is saved as {' or '.join('.' + name for name in FORMATS)}")
        try:
            if kind == "npz":
                self._save_npz(Path(path))
            else:
                self._save_mp4(Path(path))
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error

    def _save_npz(self, path: Path) -> None:
        with replace_when_whole(path) as temporary, open(temporary, "wb") as file:
            self._write_npz(file)

    def _write_npz(self, file: BinaryIO) -> None:
        np.savez_compressed(
            file,
            expression=self.expression,
            jaw_pose=self.jaw_pose,
            fps=np.int32(self.fps),
            indices_top=self.indices_top,
            indices_bottom=self.indices_bottom,
            channel_names=np.array(self.channel_names),
            **(self.provenance.arrays() if self.provenance else {}),
        )

    def _save_mp4(self, path: Path) -> None:
        # Here, because scipy.sparse and av take time to import that most callers do not need.
        from deeptalk_jax.rendering.render import render_frames
        from deeptalk_jax.rendering.video import write_video

        frames = self.frames()
        pictures = (
            picture
            for start in range(0, len(frames), _BLOCK_FRAMES)
            for picture in render_frames(self.head, self._block_vertices(frames, start))
        )
        sound, rate_hz = self._sound()
        write_video(path, pictures, fps=self.fps, audio=sound, audio_rate_hz=rate_hz)

    def _sound(self) -> tuple[np.ndarray | None, int]:
        """Returns the sound of the video: that of `sound_file` if it still exists, else `waveform`; and its rate."""
        if self.sound_file is not None and self.sound_file.is_file():
            return read_original(self.sound_file)
        return self.waveform if len(self.waveform) else None, AUDIO_RATE_HZ


def check_formats(formats: Sequence[str], others: Iterable[str] = ()) -> None:
    """Raises `UserError` unless one or more formats are given that `Motion.save` writes, or one of `others`."""
    known = (*FORMATS, *others)
    if not formats or not set(formats) <= set(known):
        raise UserError(f"--formats={','.join(formats)}: expected any of {', '.join(known)}")


def split_motion(motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits motion `[t, 53]` into expression `[t, 50]` and jaw pose `[t, 3]`."""
    return motion[:, :EXPRESSION_DIM], motion[:, EXPRESSION_DIM:]


def read_motion(
    source: str | os.PathLike | np.ndarray | Motion, *, basis: Basis | None = None, of: str = ""
) -> np.ndarray:
    """Reads the frames of a motion.

    Args:
        source: a `.npz` file written by `Motion.save` or by a tracker, see `head.tracker_motion`; a `Motion`; or
            `[t, 53]` expression and jaw pose at 25 frames per second.
        basis: basis that the coefficients must have; sources that do not record theirs are taken as they are.
        of: what needs that basis, such as `the model DIR`, for messages.

    Returns:
        `[t, 53]` float32 with t >= 1, at 25 frames per second.

    Raises:
        UserError: the file is missing or not a motion; or the motion has another basis or shape, angles that are not in
            radians, or values that are not finite.
    """
    advice = "give a motion of the head that the model was trained for"
    if isinstance(source, (str, os.PathLike)):
        arrays = read_named_arrays(Path(source), TRACKER_NAMES, expected=_EXPECTED)
        found = _basis_of_file(source, arrays)
        check_basis(found, basis, source=str(source), other=of, advice=advice)
        return tracker_motion(arrays, source=source)
    if isinstance(source, Motion):
        check_basis(source.basis, basis, source="motion", other=of, advice=advice)
        source = source.frames()
    frames = checked_frames(np.asarray(source), "motion").astype(np.float32, copy=False)
    expression, jaw_pose = split_motion(frames)
    check_values(expression, "expression", "motion")
    check_values(jaw_pose, "jaw_pose", "motion", are_angles=True)
    return frames


def _basis_of_file(name: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> Basis | None:
    """Returns the basis that the arrays of a motion file record, or None."""
    head = str(arrays["head"]) if "head" in arrays else None
    try:
        return basis_of_arrays(arrays, head)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: not {_EXPECTED} ({error})") from error
