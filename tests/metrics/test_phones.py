"""Phones of aligned recordings as frames and as a target of the jaw, by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics import phones
from deeptalk_jax.metrics.articulation import Sound
from deeptalk_jax.metrics.phones import Phone

SPOKEN = [Phone("SIL", 0.0, 0.4), Phone("M", 0.4, 0.5), Phone("AA", 0.5, 0.9), Phone("P", 0.9, 1.2)]


def test_frames_of_phones():
    assert phones.sounds_of(SPOKEN, phones.BILABIAL, 30) == [Sound(10, 13, 11), Sound(22, 30, 26)]
    # The motion ends within p, and after it.
    assert phones.sounds_of(SPOKEN, phones.BILABIAL, 24) == [Sound(10, 13, 11), Sound(22, 24, 23)]
    assert phones.sounds_of(SPOKEN, phones.BILABIAL, 22) == [Sound(10, 13, 11)]


def test_the_target_is_the_openness_far_from_borders():
    target = phones.openness_target(SPOKEN, 30, 1.2)
    assert target.shape == (30,)
    assert target[2] == pytest.approx(0.0, abs=1e-6)
    assert target[17] == pytest.approx(0.9, rel=0.01)  # 0.7 s
    # The border from m (0) to aa (0.9) at 0.5 s is half-way at frame 12, whose middle is there.
    assert target[12] == pytest.approx(0.45, rel=0.1)
    assert phones.openness_target([Phone("XX", 0.0, 1.2)], 30, 1.2)[15] == pytest.approx(0.2, rel=1e-6)


def test_silences_without_their_borders():
    silent = phones.silent_frames([*SPOKEN, Phone("SIL", 1.2, 1.36)], 40)
    assert np.flatnonzero(silent).tolist() == [2, 3, 4, 5, 6, 7, 8]  # the last silence is too short
