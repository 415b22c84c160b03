"""`Motion`: the facial motion of one clip, which inference returns, and its files.

A motion is saved as `.npz` (coefficients and codes) or `.mp4` (the rendered head with its sound).
"""

import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.types import AUDIO_RATE_HZ, EXPRESSION_DIM, JAW_POSE_DIM, MOTION_DIM, MOTION_RATE_HZ

FORMATS = ("npz", "mp4")
_BLOCK_FRAMES = 64


@dataclass(frozen=True)
class Motion:
    """Facial motion of one clip.

    Attributes:
        expression: `[t, 50]` FLAME expression coefficients.
        jaw_pose: `[t, 3]` jaw rotation, axis-angle in radians.
        indices_top: `[ceil(t / 4)]` indices of the top codes.
        indices_bottom: `[ceil(t / 2)]` indices of the bottom codes.
        waveform: `[s]` float32 sound at 16 kHz.
        load_head: returns the head of the model; a function, because building the embedded head takes longer than
            animating a short clip.
        fps: frames per second.
    """

    expression: np.ndarray
    jaw_pose: np.ndarray
    indices_top: np.ndarray
    indices_bottom: np.ndarray
    waveform: np.ndarray = field(repr=False)
    load_head: Callable[[], HeadModel] = field(repr=False)
    fps: int = MOTION_RATE_HZ

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def head(self) -> HeadModel:
        """The head that the motion was generated for."""
        return self.load_head()

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

    def save(self, path: str | os.PathLike) -> None:
        """Writes the motion to a file, whole or not at all; the extension selects the format.

        `.npz` holds `expression`, `jaw_pose`, `fps`, `indices_top` and `indices_bottom`; `.mp4` is a video of the
        rendered head with its sound.

        Raises:
            UserError: the extension is unknown, or the file cannot be written.
        """
        kind = Path(path).suffix.lstrip(".")
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
            np.savez_compressed(
                file,
                expression=self.expression,
                jaw_pose=self.jaw_pose,
                fps=np.int32(self.fps),
                indices_top=self.indices_top,
                indices_bottom=self.indices_bottom,
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
        write_video(path, pictures, fps=self.fps, audio=self.waveform, audio_rate_hz=AUDIO_RATE_HZ)


def check_formats(formats: Sequence[str]) -> None:
    """Raises `UserError` unless one or more formats are given that `Motion.save` writes."""
    if not formats or not set(formats) <= set(FORMATS):
        raise UserError(f"--formats={','.join(formats)}: expected any of {', '.join(FORMATS)}")


def split_motion(motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Splits motion `[t, 53]` into expression `[t, 50]` and jaw pose `[t, 3]`."""
    return motion[:, :EXPRESSION_DIM], motion[:, EXPRESSION_DIM:]


def read_motion(source: str | os.PathLike | np.ndarray | Motion) -> np.ndarray:
    """Reads the frames of a motion.

    Args:
        source: a `.npz` file written by `Motion.save`, a `Motion`, or `[t, 53]` expression and jaw pose at 25 frames
            per second.

    Returns:
        `[t, 53]` float32 with t >= 1.

    Raises:
        UserError: the file is missing or not a motion, or the motion has another frame rate or shape or values that
            are not finite.
    """
    name = "motion"
    if isinstance(source, Motion):
        frames = source.frames()
    elif isinstance(source, (str, os.PathLike)):
        name, frames = str(source), _read_npz(Path(source))
    else:
        frames = np.asarray(source)
    if frames.ndim != 2 or frames.shape[1] != MOTION_DIM or not len(frames) or frames.dtype.kind != "f":
        raise UserError(
            f"{name}: expected frames [t, {MOTION_DIM}] of floats, got {frames.dtype} of shape {frames.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(frames).all(axis=1))
    if len(bad):
        raise UserError(f"{name}: {len(bad)} frames are not finite, the first is frame {bad[0]}")
    return frames.astype(np.float32, copy=False)


def _read_npz(path: Path) -> np.ndarray:
    """Reads expression and jaw pose of a `.npz` file, concatenated to `[t, 53]`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            expression, jaw_pose, fps = (arrays[key] for key in ("expression", "jaw_pose", "fps"))
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a motion file of infer.py ({error})") from error
    if fps.shape or fps != MOTION_RATE_HZ:
        raise UserError(f"{path}: fps is {fps}, expected {MOTION_RATE_HZ}")
    if expression.ndim != 2 or jaw_pose.shape != (len(expression), JAW_POSE_DIM):
        raise UserError(
            f"{path}: expression {expression.shape} and jaw_pose {jaw_pose.shape} do not have the shapes of one motion"
        )
    return np.concatenate([expression, jaw_pose], axis=-1)
