"""Random shift of mel bands by hand."""

import jax
import numpy as np
import pytest

from deeptalk_jax.models.speech.band_shift import random_shift, shift_bands

_BANDS = np.array([1.0, 2.0, 4.0, 8.0], np.float32)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (0.0, [1.0, 2.0, 4.0, 8.0]),
        (1.0, [2.0, 4.0, 8.0, 8.0]),
        (-1.0, [1.0, 1.0, 2.0, 4.0]),
        (0.5, [1.5, 3.0, 6.0, 8.0]),
        (-0.25, [1.0, 1.75, 3.5, 7.0]),
        (9.0, [8.0, 8.0, 8.0, 8.0]),
    ],
)
def test_shifts_by_hand(shift, expected):
    x = np.stack([_BANDS, -_BANDS])[None]  # [1, 2, 4]; all frames of a clip have the same shift
    actual = shift_bands(x, np.array([shift], np.float32))
    np.testing.assert_allclose(actual, [[expected, np.negative(expected)]], rtol=1e-6)


def test_every_clip_has_its_own_shift_within_the_limit():
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (64, 1, 40))
    moved = np.asarray(random_shift(jax.random.key(0), ramp, 3.0)) - ramp
    shift = moved[:, 0, 20]  # the values of a ramp change by the shift, except at its ends
    assert np.abs(shift).max() <= 3.0
    assert len(np.unique(shift)) == 64
    assert shift.min() < -2.0
    assert shift.max() > 2.0
