"""What a face says: strength of emotions, closed lips, blinks and smoothness, of motions next to the truth."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from deeptalk_jax.metrics import articulation, eyelids
from deeptalk_jax.metrics.emotion_gain import emotion_gain, mean_expression, rising_share
from deeptalk_jax.metrics.face_points import FacePoints, FaceSignals
from deeptalk_jax.metrics.motion import jaw_opening
from deeptalk_jax.types import EMOTIONS, EXPRESSION_DIM, NUM_INTENSITIES, VISEME_CLASSES

TRUTH, PRIOR, GENERATED = "truth", "prior", "generated"
HEARD = "heard"  # source of the gains of generated motion, whose emotion comes from the speech
NEUTRAL = EMOTIONS.index("neutral")
_BLINK_FRAMES = (
    4  # frames around half closed eyes that the smoothness leaves out; a blink takes 3 to 7 frames
)

GainTable = dict[str, dict[str, list[float | None]]]


class FaceClip(NamedTuple):
    """A clip and the motions that are compared.

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


class FaceReport(NamedTuple):
    """The measures of a set of clips.

    Attributes:
        gains: gain tables by source: `named`, and one per motion except the truth, where `generated` is `heard`.
        motions: measures by name of the motion, the truth included.
    """

    gains: dict[str, GainTable]
    motions: dict[str, dict[str, float]]

    def metrics(self, subject: str) -> dict[str, float]:
        """Returns the numbers that are compared between runs.

        Args:
            subject: name of the motion that is evaluated. Its measures have no suffix, those of others have `_NAME`.
        """
        found = {}
        for name, table in self.gains.items():
            found |= {f"gain_{name}_{key}": value for key, value in summary(table, "gain").items()}
            found[f"cosine_{name}_min"] = summary(table, "cosine")["min"]
        if "named" in self.gains:
            found["gain_named_rising_min"] = min(row["rising"][0] for row in self.gains["named"].values())
        for name, measures in self.motions.items():
            suffix = "" if name == subject else f"_{name}"
            found |= {f"{key}{suffix}": value for key, value in measures.items()}
        return found


def face_report(clips: Sequence[FaceClip], named: NamedFaces | None, points: FacePoints) -> FaceReport:
    """Measures the faces of clips.

    Measures that a data set has no clips for, such as closures without viseme labels, are left out.
    """
    truth = expressions(clips, TRUTH)
    gains = {} if named is None else {"named": named_table(named, truth)}
    for name in clips[0].motions:
        if name != TRUTH:
            gains[HEARD if name == GENERATED else name] = gain_table(expressions(clips, name), truth)
    return FaceReport(
        {source: table for source, table in gains.items() if table}, motion_measures(clips, points)
    )


def expressions(clips: Sequence[FaceClip], name: str) -> Float[np.ndarray, "e i 50"]:
    """Returns the mean expression of each emotion and intensity minus that of the neutral clips; NaN without clips.

    Args:
        clips: clips; every clip counts alike.
        name: name of the motion.
    """
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


def gain_table(shown: Float[np.ndarray, "e i d"], truth: Float[np.ndarray, "e i d"]) -> GainTable:
    """Returns `gain` and `cosine` of each emotion, one number per intensity; None where there are no clips.

    Emotions without clips, and neutral, are left out.
    """
    known = np.isfinite(shown).all(axis=-1) & np.isfinite(truth).all(axis=-1)
    table = {}
    for label in np.flatnonzero(known.any(axis=-1)):
        values = [
            emotion_gain(shown[label, level], truth[label, level]) if known[label, level] else (None, None)
            for level in range(NUM_INTENSITIES)
        ]
        gains, cosines = map(list, zip(*values, strict=True))
        table[EMOTIONS[label]] = {"gain": gains, "cosine": cosines}
    return table


def named_table(faces: NamedFaces, truth: Float[np.ndarray, "e i d"]) -> GainTable:
    """Returns the gain table of named emotions, and as `rising` the share of sentences that rise with the intensity."""
    differences = faces.shown - faces.neutral[:, None, None]
    table = gain_table(differences.mean(axis=0), truth)
    for emotion, row in table.items():
        label = EMOTIONS.index(emotion)
        levels = [level for level, gain in enumerate(row["gain"]) if gain is not None]
        asked = np.isfinite(differences[0, label]).all(axis=-1)
        row["rising"] = [rising_share(differences[:, label, asked], truth[label, levels[-1]])]
    return table


def summary(table: GainTable, key: str) -> dict[str, float]:
    """Returns mean and minimum over the emotions of a column, at the strongest intensity that has clips."""
    values = [[value for value in row[key] if value is not None][-1] for row in table.values()]
    return {"mean": float(np.mean(values)), "min": float(np.min(values))}


def motion_measures(clips: Sequence[FaceClip], points: FacePoints) -> dict[str, dict[str, float]]:
    """Measures lips, eyes and smoothness of each motion of the clips.

    Returns:
        By name of the motion: `closure_rate`, `closure_auc`, `rounding_auc`, `onset_lag_frames` (means over clips),
        `closed_share`, `blinks_per_minute` (over all frames), and for motions other than the truth `brow_jitter` and
        `lid_jitter`, the mean second difference over that of the truth, away from blinks.
    """
    found, roughness = {}, {}
    for name in clips[0].motions:
        columns, signals = defaultdict(list), []
        for clip in clips:
            motion = clip.motions[name]
            signals.append(points.signals(motion))
            for key, value in speech_measures(signals[-1], motion, clip.visemes).items():
                columns[key].append(value)
        means = {key: _mean(values) for key, values in columns.items()}
        found[name] = {key: value for key, value in means.items() if np.isfinite(value)}
        found[name] |= eye_measures([one.lid_opening for one in signals])
        roughness[name] = _roughness(signals)
    for name, values in roughness.items():
        if name != TRUTH:
            found[name] |= {
                f"{region}_jitter": value / roughness[TRUTH][region] for region, value in values.items()
            }
    return found


def speech_measures(
    signals: FaceSignals, motion: Float[np.ndarray, "t 53"], visemes: Int[np.ndarray, " t"]
) -> dict[str, float]:
    """Measures the mouth of one clip by the viseme of each frame; NaN where it has no such sounds."""
    sounds = {
        name: articulation.runs(visemes, VISEME_CLASSES.index(name))
        for name in ("bilabial", "open", "rounded", "spread")
    }
    closures, vowels = sounds["bilabial"], sounds["open"]
    onsets = articulation.speech_onsets(visemes == VISEME_CLASSES.index("silence"))
    return {
        "closure_rate": articulation.closure_rate(signals.lip_gap, closures, vowels),
        "closure_auc": articulation.closure_auc(signals.lip_gap, closures, vowels),
        "rounding_auc": articulation.rounding_auc(signals.mouth_width, sounds["rounded"], sounds["spread"]),
        "onset_lag_frames": articulation.onset_lag_frames(jaw_opening(motion), onsets),
    }


def eye_measures(openings: Sequence[Float[np.ndarray, " _"]]) -> dict[str, float]:
    """Returns `closed_share` and `blinks_per_minute` over the frames of all clips."""
    blinks = sum(eyelids.count_blinks(opening) for opening in openings)
    frames = np.concatenate(openings)
    return {
        "closed_share": eyelids.closed_share(frames),
        "blinks_per_minute": eyelids.blinks_per_minute(blinks, len(frames)),
    }


def away_from_blinks(opening: Float[np.ndarray, " t"]) -> Bool[np.ndarray, " _"]:
    """Returns for the `t - 2` inner frames whether no blink is near.

    A blink is fast, so a motion that lacks blinks would seem smoother than the truth.
    """
    half_closed = (opening < eyelids.REOPENED).astype(float)
    return np.convolve(half_closed, np.ones(2 * _BLINK_FRAMES + 1), "same")[: len(opening)][1:-1] < 0.5


def _roughness(signals: Sequence[FaceSignals]) -> dict[str, float]:
    """Returns the mean second difference of brows and lids in mm, over the frames away from blinks."""
    away = np.concatenate([away_from_blinks(one.lid_opening) for one in signals])
    return {
        "brow": float(np.concatenate([one.brow_acceleration for one in signals])[away].mean()),
        "lid": float(np.concatenate([one.lid_acceleration for one in signals])[away].mean()),
    }


def _mean(values: Sequence[Any]) -> float:
    """Returns the mean of the finite values; NaN if there are none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
