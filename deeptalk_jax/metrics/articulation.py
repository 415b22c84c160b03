"""What the lips do at the sounds of speech: closure of p, b and m, rounding, and the lag of the mouth.

All measures compare a clip with itself: gaps of closures with the gaps of its own open vowels.
"""

from typing import NamedTuple

import numpy as np

CLOSED_SHARE = 0.25  # a closure counts if its smallest gap is under this share of the gap of open vowels

SILENT_FRAMES = 5  # 0.2 s; shorter silences are stops
ONSET_SHARE = 0.25  # of the widest opening, from which on the mouth counts as open
_LATEST_ONSET_FRAMES = 12  # an opening later than that belongs to another sound


class Sound(NamedTuple):
    """Frames of one sound.

    Attributes:
        start: first frame.
        stop: frame after the last one.
        middle: frame in the middle.
    """

    start: int
    stop: int
    middle: int


def runs(labels: np.ndarray, label: int) -> list[Sound]:
    """Returns the sounds of one label in `[t]` labels of frames, as runs of equal labels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], labels == label, [False]]).astype(np.int8)))
    return [
        Sound(int(start), int(stop), int(start + stop) // 2)
        for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]


def auc(low: np.ndarray, high: np.ndarray) -> float:
    """Returns the probability that a value of `low` is below one of `high`, ties counting half; NaN if one is empty.

    It is the area under the ROC curve (Hanley and McNeil, Radiology 1982).
    """
    if not len(low) or not len(high):
        return float("nan")
    first, second = np.asarray(low)[:, None], np.asarray(high)[None]
    return float((first < second).mean() + 0.5 * (first == second).mean())


def closure_auc(gap: np.ndarray, closures: list[Sound], vowels: list[Sound]) -> float:
    """Returns the probability that the gap at the middle of a closure is below that of an open vowel.

    Args:
        gap: `[t]` gap between the lips.
        closures: p, b and m.
        vowels: open vowels.
    """
    return auc(_at_middle(gap, closures), _at_middle(gap, vowels))


def closure_rate(gap: np.ndarray, closures: list[Sound], vowels: list[Sound]) -> float:
    """Returns the share of closures whose smallest gap is under a quarter of the median gap of open vowels.

    Args:
        gap: `[t]` gap between the lips above that of the face at rest, so that 0 is closed.
        closures: p, b and m.
        vowels: open vowels; their gap is taken at their middle.

    Returns:
        The share; NaN if there are no closures or no vowels.
    """
    if not closures or not vowels:
        return float("nan")
    smallest = np.array([gap[sound.start : sound.stop].min() for sound in closures])
    return float(np.mean(smallest < CLOSED_SHARE * np.median(_at_middle(gap, vowels))))


def rounding_auc(width: np.ndarray, rounded: list[Sound], spread: list[Sound]) -> float:
    """Returns the probability that the mouth is narrower at the middle of a rounded sound than of a spread one.

    Args:
        width: `[t]` width of the mouth.
        rounded: sounds such as u and w.
        spread: sounds such as i and e.
    """
    return auc(_at_middle(width, rounded), _at_middle(width, spread))


def lag_frames(signal: np.ndarray, target: np.ndarray, most: int = 5) -> float:
    """Returns the shift of a signal that correlates best with a target; positive means that the signal is late.

    Args:
        signal: `[t]` for instance the opening of the jaw.
        target: `[t]` what it should be.
        most: largest shift in frames.

    Returns:
        The shift in frames; NaN if the clip is shorter than `2 * most + 10` frames or a signal is constant.
    """
    edge = most + 1
    if len(signal) < 2 * edge + 8:
        return float("nan")
    inner = target[edge : len(target) - edge]
    shifted = [signal[edge + shift : len(signal) - edge + shift] for shift in range(-most, most + 1)]
    if not inner.std() or not all(part.std() for part in shifted):
        return float("nan")
    return float(np.argmax([np.corrcoef(part, inner)[0, 1] for part in shifted]) - most)


def speech_onsets(silent: np.ndarray, shortest: int = SILENT_FRAMES) -> list[int]:
    """Returns the first frames of speech after at least `shortest` frames of silence, for `[t]` bool."""
    silences = runs(silent, True)
    return [one.stop for one in silences if one.stop - one.start >= shortest and one.stop < len(silent)]


def onset_lag_frames(jaw: np.ndarray, onsets: list[int]) -> float:
    """Returns how many frames after the start of speech the mouth opens, the mean over onsets.

    The mouth is open when the jaw passes a quarter of the 90th percentile of its angles in the clip.

    Args:
        jaw: `[t]` opening of the jaw.
        onsets: first frames of speech.

    Returns:
        The lag; NaN if the mouth does not open after any onset, or if there is none.
    """
    is_open = jaw > ONSET_SHARE * np.percentile(jaw, 90)
    lags = []
    for onset in onsets:
        start = max(onset - SILENT_FRAMES, 0)
        found = np.flatnonzero(is_open[start : onset + _LATEST_ONSET_FRAMES])
        if len(found):
            lags.append(start + found[0] - onset)
    return float(np.mean(lags)) if lags else float("nan")


def _at_middle(signal: np.ndarray, sounds: list[Sound]) -> np.ndarray:
    return signal[[sound.middle for sound in sounds]]
