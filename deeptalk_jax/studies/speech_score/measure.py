"""Scores the motion of recordings against the times of their phones."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.metrics import articulation, phones
from deeptalk_jax.metrics.face_points import FacePoints
from deeptalk_jax.metrics.phones import Phone
from deeptalk_jax.types import EXPRESSION_DIM

SOUND_ENDINGS = (".wav", ".flac", ".ogg", ".mp3")
_SHORTEST_CLIP_FRAMES = 20
_STILL_JAW_RAD = 1e-6


class Recording(NamedTuple):
    """A recording with the times of its phones.

    Attributes:
        name: name of the file without ending.
        phones: phones in order.
        seconds: length that the times were taken from.
    """

    name: str
    phones: Sequence[Phone]
    seconds: float


def read_alignment(path: Path) -> list[Recording]:
    """Reads a list of `{"name": ..., "phones": [[symbol, start_s, end_s], ...], "seconds": ...}`.

    Raises:
        UserError: the file cannot be read, or has another form.
    """
    try:
        entries = json.loads(path.read_text())
        recordings = [
            Recording(
                str(entry["name"]),
                [Phone(str(symbol), float(start), float(end)) for symbol, start, end in entry["phones"]],
                float(entry["seconds"]),
            )
            for entry in entries
        ]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: {error!r} in place of a list of recordings with name, phones "
            "([[symbol, start_s, end_s], ...]) and seconds"
        ) from error
    if not recordings:
        raise UserError(f"{path}: an empty list; expected at least one recording")
    return recordings


def sound_of(directory: Path, name: str) -> Path:
    """Returns the sound file of a recording.

    Raises:
        UserError: the folder has no sound of that name.
    """
    for ending in SOUND_ENDINGS:
        path = directory / f"{name}{ending}"
        if path.is_file():
            return path
    raise UserError(f"{directory}: no sound for the recording {name!r}; expected {name}{SOUND_ENDINGS[0]}")


def clip_scores(
    motion: Float[np.ndarray, "t 53"], recording: Recording, points: FacePoints
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Scores one motion.

    Returns:
        The numbers that the docstring of `__main__` explains, NaN where the recording has no such phones; and as
        `closures` and `vowels` the gaps of these sounds over the median gap of the open vowels.
    """
    num_frames = len(motion)
    jaw = np.linalg.norm(motion[:, EXPRESSION_DIM:], axis=1)
    if num_frames < _SHORTEST_CLIP_FRAMES or jaw.std() < _STILL_JAW_RAD:
        return {"jaw_target_correlation": 0.0}, {}
    signals = points.signals(motion)
    closures, vowels, rounded, spread = (
        phones.sounds_of(recording.phones, symbols, num_frames)
        for symbols in (phones.BILABIAL, phones.OPEN_VOWELS, phones.ROUNDED, phones.SPREAD)
    )
    target = phones.openness_target(recording.phones, num_frames, recording.seconds)
    silent = phones.silent_frames(recording.phones, num_frames)
    scores = {
        "jaw_target_correlation": float(np.corrcoef(jaw, target)[0, 1]),
        "closure_auc": articulation.closure_auc(signals.lip_gap, closures, vowels),
        "closure_rate": articulation.closure_rate(signals.lip_gap, closures, vowels),
        "rounding_auc": articulation.rounding_auc(signals.mouth_width, rounded, spread),
        "silence_ratio": float(jaw[silent].mean() / jaw.mean()) if silent.any() else float("nan"),
        "lag_frames": articulation.lag_frames(jaw, target),
    }
    gaps = {}
    if closures and vowels:
        middle = np.array([signals.lip_gap[sound.middle] for sound in vowels])
        lowest = np.array([signals.lip_gap[sound.start : sound.stop].min() for sound in closures])
        scale = float(np.median(middle))
        gaps = {"closures": (lowest / scale).tolist(), "vowels": (middle / scale).tolist()}
    return scores, gaps


def score_recordings(
    model: DeepTalk, directory: Path, recordings: Sequence[Recording], emotion: str | None
) -> dict[str, Any]:
    """Animates recordings and scores them.

    Returns:
        `clips`, the means of all scores over the recordings that have them, `recordings` with the scores of each by
        name, and `gaps`.
    """
    sounds = [sound_of(directory, recording.name) for recording in recordings]
    points, by_name, gaps = FacePoints(model.head), {}, {"closures": [], "vowels": []}
    for recording, motion in zip(
        recordings, model.animate(sounds, emotion=emotion, blinks=False), strict=True
    ):
        scores, of_clip = clip_scores(motion.frames(), recording, points)
        by_name[recording.name] = {key: value for key, value in scores.items() if np.isfinite(value)}
        for key, values in of_clip.items():
            gaps[key] += values
    return {"clips": len(by_name), **means(by_name), "recordings": by_name, "gaps": gaps}


def means(by_name: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Returns the mean of each score over the recordings that have it."""
    keys = dict.fromkeys(key for scores in by_name.values() for key in scores)
    return {
        key: float(np.mean([scores[key] for scores in by_name.values() if key in scores])) for key in keys
    }
