"""Blinks: how often the eyes close, and how long."""

import numpy as np

from deeptalk_jax.types import MOTION_RATE_HZ

_FRAMES_PER_MINUTE = 60 * MOTION_RATE_HZ
# PERCLOS, the measure of closed eyes in studies of drowsiness, counts an eye as closed if the lids cover 80 % of it
# (P80; Wierwille et al., NHTSA DOT HS 808 247, 1994).
CLOSED_OPENING = 0.2
# A blink is over when the eye is open to this share, so that a closed eye that trembles is one blink.
REOPENED = 0.5


def closed_share(opening: np.ndarray) -> float:
    """Returns the share of frames with closed eyes.

    Args:
        opening: `[t]` opening of the lids over that at rest.
    """
    return float(np.mean(opening < CLOSED_OPENING))


def count_blinks(opening: np.ndarray) -> int:
    """Returns the number of times that `[t]` lids close; they must open by half in between."""
    count, closed = 0, False
    for value in opening:
        if not closed and value < CLOSED_OPENING:
            count, closed = count + 1, True
        elif value > REOPENED:
            closed = False
    return count


def blinks_per_minute(num_blinks: int, num_frames: int) -> float:
    """Returns the rate of blinks."""
    return num_blinks * _FRAMES_PER_MINUTE / num_frames
