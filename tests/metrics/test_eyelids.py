"""Blinks and closed eyes, by hand."""

import numpy as np

from deeptalk_jax.metrics.eyelids import blinks_per_minute, closed_share, count_blinks


def test_closed_share_counts_frames_below_a_fifth():
    assert closed_share(np.array([1.0, 0.21, 0.19, -0.1, 0.9])) == 0.4


def test_a_blink_ends_only_when_the_eye_is_half_open():
    assert count_blinks(np.array([1.0, 0.1, 0.3, 0.1, 0.4, 0.1, 0.9])) == 1  # trembles, does not open
    assert count_blinks(np.array([1.0, 0.1, 0.6, 0.1, 1.0])) == 2
    assert count_blinks(np.array([1.0, 0.3, 1.0])) == 0  # a half blink
    assert count_blinks(np.array([0.0, 0.0, 1.0])) == 1


def test_rate():
    assert blinks_per_minute(3, 300) == 15.0  # 12 s at 25 Hz
