"""What a face says: strength of emotions, closed lips, blinks and smoothness, of motions next to the truth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.metrics import articulation, eyelids
from deeptalk_jax.metrics.emotion_gain import emotion_gain, mean_expression, rising_share
from deeptalk_jax.metrics.face_points import FacePoints
from deeptalk_jax.types import EMOTIONS, EXPRESSION_DIM, NUM_INTENSITIES, VISEME_CLASSES

TRUTH = "truth"
NEUTRAL = EMOTIONS.index("neutral")


class FaceClip(NamedTuple):
    """A clip and the motions that stand for it.

    Attributes:
        motions: motions `[t, 53]` by name; `truth` is the true one.
        emotion: label.
        intensity: index of the intensity, from 0.
        visemes: `[t]` class of `types.VISEME_CLASSES` of each frame, or -1.
    """

    motions: Mapping[str, np.ndarray]
    emotion: int
    intensity: int
    visemes: np.ndarray


class NamedFaces(NamedTuple):
    """Mean expressions of neutral sentences that were animated with named emotions.

    Attributes:
        neutral: `[n, 50]` of n sentences animated as neutral.
        shown: `[n, e, i, 50]` animated with each emotion and intensity; NaN for those that the model does not know.
    """

    neutral: np.ndarray
    shown: np.ndarray


def true_expressions(clips: Sequence[FaceClip]) -> Float[np.ndarray, "e i 50"]:
    """Returns the expression of each emotion and intensity in the true motion, see `expressions`."""
    return expressions(clips, TRUTH)


def expressions(clips: Sequence[FaceClip], name: str) -> Float[np.ndarray, "e i 50"]:
    """Returns the mean expression of each emotion and intensity minus that of the neutral clips; NaN without clips."""
    means = np.stack([mean_expression(clip.motions[name]) for clip in clips])
    labels = np.array([(clip.emotion, clip.intensity) for clip in clips])
    shown = np.full((len(EMOTIONS), NUM_INTENSITIES, EXPRESSION_DIM), np.nan)
    neutral = labels[:, 0] == NEUTRAL
    if not neutral.any():
        return shown
    for emotion, intensity in np.unique(labels[~neutral], axis=0):
        rows = (labels == (emotion, intensity)).all(axis=1)
        shown[emotion, intensity] = means[rows].mean(axis=0) - means[neutral].mean(axis=0)
    return shown


def gain_table(
    shown: Float[np.ndarray, "e i d"], truth: Float[np.ndarray, "e i d"]
) -> dict[str, dict[str, list[float | None]]]:
    """Returns gain and cosine by emotion, one number per intensity; None where there are no clips."""
    table = {}
    for label, emotion in enumerate(EMOTIONS):
        if label == NEUTRAL:
            continue
        values = [
            emotion_gain(a, b) if np.isfinite(a).all() and np.isfinite(b).all() else (None, None)
            for a, b in zip(shown[label], truth[label], strict=True)
        ]
        table[emotion] = dict(zip(("gain", "cosine"), map(list, zip(*values, strict=True)), strict=True))
    return table


def named_table(
    faces: NamedFaces, truth: Float[np.ndarray, "e i d"]
) -> dict[str, dict[str, list[float | None]]]:
    """Returns the gain table of named emotions, with the share of sentences whose face rises with the intensity."""
    differences = faces.shown - faces.neutral[:, None, None]
    table = gain_table(differences.mean(axis=0), truth)
    for emotion, row in table.items():
        label = EMOTIONS.index(emotion)
        row["rising"] = rising_share(differences[:, label], truth[label, -1])
    return table


def speech_and_eyes(clips: Sequence[FaceClip], head: HeadModel) -> dict[str, dict[str, float]]:
    """Measures closures, rounding, lag, blinks and smoothness of each motion; means over clips as in `_clip_measures`.

    Returns:
        Numbers by name of the motion.
    """
    points = FacePoints(head)
    found = {}
    for name in clips[0].motions:
        columns, blinks, frames = defaultdict(list), 0, 0
        for clip in clips:
            signals = points.signals(clip.motions[name])
            for key, value in _clip_measures(signals, clip.visemes).items():
                columns[key].append(value)
            blinks += eyelids.count_blinks(signals.lid_opening)
            frames += len(signals.lid_opening)
            awake = smooth_frames(signals.lid_opening)
            columns["brow_bend_mm"].append(signals.brow_bend[awake].mean())
            columns["lid_bend_mm"].append(signals.lid_bend[awake].mean())
            columns["closed_share"].append(eyelids.closed_share(signals.lid_opening))
        found[name] = {key: float(np.nanmean(values)) for key, values in columns.items()}
        found[name]["blinks_per_minute"] = eyelids.blinks_per_minute(blinks, frames)
    return found


def smooth_frames(opening: np.ndarray, around: int = 4) -> np.ndarray:
    """Returns `[t - 2]` bool, false near closed eyes: a blink is fast, and motions with more blinks are not rougher."""
    blinking = np.convolve(opening < eyelids.REOPENED, np.ones(2 * around + 1), "same") > 0
    return ~blinking[1:-1]


def _clip_measures(signals, visemes: Int[np.ndarray, " t"]) -> dict[str, float]:
    sounds = {name: articulation.runs(visemes, VISEME_CLASSES.index(name)) for name in VISEME_CLASSES}
    closures, vowels = sounds["bilabial"], sounds["open"]
    return {
        "closure_rate": articulation.closure_rate(signals.lip_gap, closures, vowels),
        "closure_auc": articulation.closure_auc(signals.lip_gap, closures, vowels),
        "rounding_auc": articulation.rounding_auc(signals.mouth_width, sounds["rounded"], sounds["spread"]),
    }


def summary(table: Mapping[str, Any], key: str, level: int = -1) -> dict[str, float]:
    """Returns mean and minimum over emotions of one column of a gain table at one intensity."""
    values = [row[key][level] for row in table.values() if row[key][level] is not None]
    return {"mean": float(np.mean(values)), "min": float(np.min(values))}
