"""Phones of English in ARPAbet: how far each opens the mouth, and which close, round or spread the lips.

Aligners of recorded speech write these phones. The openness is a rough scale from 0 (closed) to 1 (widest) that serves
as a target for the opening of the jaw; a model is compared with others on it, not with the truth.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from deeptalk_jax.metrics.articulation import Sound
from deeptalk_jax.types import MOTION_RATE_HZ

SILENCES = frozenset({"SIL", "<sil>"})
BILABIAL = frozenset({"P", "B", "M"})
OPEN_VOWELS = frozenset({"AA", "AE", "AO", "AW", "AY", "EH", "AH"})
ROUNDED = frozenset({"UW", "OW", "W", "UH"})
SPREAD = frozenset({"IY", "EY", "AE", "IH", "EH"})
_OTHER_OPENNESS = 0.2
_OPENNESS = {
    0.9: "AA AE",
    0.85: "AW AY",
    0.75: "AO",
    0.65: "EH",
    0.6: "AH OY",
    0.55: "OW",
    0.5: "EY",
    0.4: "ER HH",
    0.35: "IH UH L",
    0.3: "K G NG",
    0.25: "IY UW N R",
    0.2: "T D TH DH W Y",
    0.15: "SH ZH CH JH",
    0.1: "F V S Z",
    0.0: "P B M SIL <sil>",
}
OPENNESS = {phone: value for value, phones in _OPENNESS.items() for phone in phones.split()}

_FINE_RATE_HZ = 100
_SMOOTHING_S = 0.04  # standard deviation of the Gaussian that smooths the target
_SMOOTHING_REACH_S = 0.15


class Phone(NamedTuple):
    """A phone in time.

    Attributes:
        symbol: ARPAbet without stress, such as `AA`, or a silence.
        start_s: start in seconds.
        end_s: end in seconds.
    """

    symbol: str
    start_s: float
    end_s: float


def sounds_of(phones: Sequence[Phone], symbols: frozenset[str], num_frames: int) -> list[Sound]:
    """Returns the frames of the phones in `symbols` of a motion of `num_frames`.

    A frame counts to all phones that it overlaps with, because a closure may be shorter than a frame.
    """
    sounds = []
    for phone in phones:
        start = int(phone.start_s * MOTION_RATE_HZ)
        if phone.symbol in symbols and start < num_frames:
            stop = min(int(phone.end_s * MOTION_RATE_HZ) + 1, num_frames)
            middle = int((phone.start_s + phone.end_s) / 2 * MOTION_RATE_HZ)
            sounds.append(Sound(start, stop, min(middle, num_frames - 1)))
    return sounds


def openness_target(phones: Sequence[Phone], num_frames: int, seconds: float) -> np.ndarray:
    """Returns the openness of the phones at the middle of each frame, `[t]`, smoothed over about 0.1 s.

    Args:
        phones: phones in order.
        num_frames: number of frames.
        seconds: length of the sound.
    """
    fine = np.zeros(int(seconds * _FINE_RATE_HZ) + 8)
    for phone in phones:
        start, stop = int(phone.start_s * _FINE_RATE_HZ), int(phone.end_s * _FINE_RATE_HZ)
        fine[start:stop] = OPENNESS.get(phone.symbol, _OTHER_OPENNESS)
    reach = round(_SMOOTHING_REACH_S * _FINE_RATE_HZ)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (_SMOOTHING_S * _FINE_RATE_HZ)) ** 2)
    fine = np.convolve(fine, kernel / kernel.sum(), "same")
    times_s = (np.arange(num_frames) + 0.5) / MOTION_RATE_HZ
    return np.interp(times_s, (np.arange(len(fine)) + 0.5) / _FINE_RATE_HZ, fine)


def silent_frames(phones: Sequence[Phone], num_frames: int, shortest_s: float = 0.2) -> np.ndarray:
    """Returns `[t]` bool, true inside silences of more than `shortest_s`, without two frames at their borders."""
    silent = np.zeros(num_frames, bool)
    for phone in phones:
        if phone.symbol in SILENCES and phone.end_s - phone.start_s > shortest_s:
            silent[int(phone.start_s * MOTION_RATE_HZ) + 2 : int(phone.end_s * MOTION_RATE_HZ) - 1] = True
    return silent
