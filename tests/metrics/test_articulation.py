"""Closures, rounding and onsets of speech, by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics import articulation
from deeptalk_jax.metrics.articulation import Sound


def test_runs_of_a_label():
    labels = np.array([1, 1, 0, 1, 2, 2, 1, 1, 1])
    assert articulation.runs(labels, 1) == [Sound(0, 2, 1), Sound(3, 4, 3), Sound(6, 9, 7)]
    assert articulation.runs(labels, 5) == []


def test_auc_counts_pairs_and_half_of_ties():
    assert articulation.auc([0.0, 1.0], [2.0, 3.0]) == 1.0
    assert articulation.auc([2.0, 3.0], [0.0, 1.0]) == 0.0
    assert articulation.auc([0.0, 1.0, 2.0], [1.0, 3.0]) == (2 + 1.5 + 1) / 6
    assert np.isnan(articulation.auc([], [1.0]))


def test_closure_rate_takes_the_smallest_gap_and_the_median_of_the_vowels():
    gap = np.array([4.0, 4.0, 0.9, 3.0, 2.0, 8.0, 1.1, 0.5])
    vowels = [Sound(0, 2, 1), Sound(3, 4, 3), Sound(5, 6, 5)]  # 4, 3 and 8: the limit is 1
    closures = [Sound(1, 4, 2), Sound(6, 7, 6), Sound(6, 8, 6)]  # smallest gaps 0.9, 1.1 and 0.5
    assert articulation.closure_rate(gap, closures, vowels) == pytest.approx(2 / 3)
    # At the middle: 0.9, 1.1 and 1.1 are below all of 4, 3 and 8.
    assert articulation.closure_auc(gap, closures, vowels) == 1.0
    assert np.isnan(articulation.closure_rate(gap, [], vowels))
    assert np.isnan(articulation.closure_rate(gap, closures, []))


def test_rounding_compares_widths_at_the_middle():
    width = np.array([50.0, 40.0, 60.0, 45.0])
    rounded, spread = [Sound(1, 2, 1), Sound(3, 4, 3)], [Sound(0, 1, 0), Sound(2, 3, 2)]
    assert articulation.rounding_auc(width, rounded, spread) == 1.0
    assert articulation.rounding_auc(width, spread, rounded) == 0.0


@pytest.mark.parametrize("shift", [-3, 0, 2])
def test_lag_is_positive_for_a_late_signal(shift):
    target = np.random.default_rng(0).normal(size=60)
    assert articulation.lag_frames(np.roll(target, shift), target) == shift


def test_lag_needs_motion_and_length():
    wave = np.sin(np.arange(60.0))
    assert np.isnan(articulation.lag_frames(np.ones(60), wave))
    assert np.isnan(articulation.lag_frames(wave[:19], wave[:19]))
    assert articulation.lag_frames(wave[:20], wave[:20]) == 0


def test_onsets_follow_long_silences_only():
    silent = np.array(
        [True] * 6 + [False] * 4 + [True] * 3 + [False] * 4 + [True] * 8 + [False] * 2 + [True] * 9
    )
    assert articulation.speech_onsets(silent) == [6, 25]


def test_onset_lag_is_the_first_open_frame_near_the_onset():
    jaw = np.zeros(60)
    jaw[12:30], jaw[38:50] = 0.2, 0.2
    assert articulation.onset_lag_frames(jaw, [10]) == 2.0
    assert articulation.onset_lag_frames(jaw, [10, 40]) == 0.0  # 2 late and 2 early
    assert np.isnan(articulation.onset_lag_frames(jaw, []))
