"""Pictures of the demo: a contact sheet of one motion, and a strip of one sentence in several emotions."""

from pathlib import Path

import numpy as np

from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.metrics.motion import jaw_opening
from deeptalk_jax.rendering.contact_sheet import write_contact_sheet
from deeptalk_jax.rendering.emotion_strip import draw_emotion_strip
from deeptalk_jax.rendering.render import render_frames
from deeptalk_jax.types import AUDIO_RATE_HZ, NUM_INTENSITIES

_SHEET_FRAMES = 10
_SHEET_PIXELS = 320
_STRIP_FRAMES = 8
_STRIP_PIXELS = 360
_STRIP_EMOTIONS = ("neutral", "happy", "surprised", "angry")
_FACE_ROWS, _FACE_COLUMNS = slice(80, 330), slice(80, 280)  # crop of the rendered `_STRIP_PIXELS` squared


def write_sheet(path: Path, motion: Motion) -> None:
    """Writes evenly spaced frames, the waveform and the opening of the jaw as one picture."""
    indices = _even_indices(len(motion), _SHEET_FRAMES)
    frames = list(render_frames(motion.head, motion.vertices()[indices], size=_SHEET_PIXELS))
    write_contact_sheet(
        path,
        frames,
        (indices + 0.5) / motion.fps,
        motion.waveform,
        AUDIO_RATE_HZ,
        traces={"jaw opening (rad)": jaw_opening(motion.frames())},
    )


def write_strip(path: Path, model: DeepTalk, speech: Path) -> None:
    """Writes close-ups of the same speech in four strong emotions as one picture."""
    rows, times_s = {}, []
    for emotion in _STRIP_EMOTIONS:
        motion = model.animate(speech, emotion=f"{emotion}@{NUM_INTENSITIES}", blinks=False)
        indices = _even_indices(len(motion), _STRIP_FRAMES)
        frames = render_frames(motion.head, motion.vertices()[indices], size=_STRIP_PIXELS)
        rows[emotion] = [frame[_FACE_ROWS, _FACE_COLUMNS] for frame in frames]
        times_s = (indices + 0.5) / motion.fps
    with replace_when_whole(path) as temporary:
        temporary.write_bytes(draw_emotion_strip(rows, times_s))


def _even_indices(length: int, most: int) -> np.ndarray:
    """Returns up to `most` evenly spaced indices, from the first to the last."""
    return np.linspace(0, length - 1, min(most, length)).round().astype(int)
