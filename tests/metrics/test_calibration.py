"""Reliability diagram and Brier skill score by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.calibration import brier_skill, reliability

# With four bins: 0.1 and 0.2 are in the first, 0.25 is in the second, the third is empty, 0.8 and 1 are in the last.
PROBABILITY = np.array([0.1, 0.2, 0.25, 0.8, 1.0])
OUTCOME = np.array([False, True, False, True, True])
WEIGHTS = np.array([1.0, 1.0, 2.0, 3.0, 1.0])


def test_reliability_by_hand():
    curve = reliability(PROBABILITY, OUTCOME, WEIGHTS, num_bins=4)
    np.testing.assert_allclose(curve.edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.confidence, [0.15, 0.25, np.nan, 3.4 / 4])
    np.testing.assert_allclose(curve.frequency, [0.5, 0.0, np.nan, 1.0])
    np.testing.assert_allclose(curve.share, [2 / 8, 2 / 8, 0, 4 / 8])
    assert curve.expected_calibration_error == pytest.approx((2 * 0.35 + 2 * 0.25 + 4 * 0.15) / 8)


def test_weights_have_the_effect_of_repeated_events():
    repeats = WEIGHTS.astype(int)
    repeated = (np.repeat(values, repeats) for values in (PROBABILITY, OUTCOME, np.ones(5)))
    curve, other = reliability(PROBABILITY, OUTCOME, WEIGHTS), reliability(*repeated)
    for ours, expected in zip(curve, other, strict=True):
        np.testing.assert_allclose(ours, expected)


def test_brier_skill_by_hand():
    weights = np.ones(4)
    outcome = np.array([True, False, False, False])
    assert brier_skill(outcome, outcome, weights) == 1.0
    assert brier_skill(np.full(4, 0.25), outcome, weights) == pytest.approx(0.0)
    # Squared errors are 0.25 and three times 0.01: mean 0.07, against 3/16 for the base rate.
    assert brier_skill(np.array([0.5, 0.1, 0.1, 0.1]), outcome, weights) == pytest.approx(1 - 0.07 / 0.1875)
    # With weight 3, the only match is half of all events, and the Brier score of the base rate is 1/4.
    assert brier_skill(np.full(4, 0.25), outcome, np.array([3.0, 1, 1, 1])) == pytest.approx(
        1 - 0.3125 / 0.25
    )
    assert np.isnan(brier_skill(np.full(4, 0.25), np.ones(4, bool), weights))


@pytest.mark.parametrize(
    ("probability", "weights", "message"),
    [
        ([0.5], [1.0, 1.0], "shapes differ"),
        ([0.5, 1.5], [1.0, 1.0], "probability=1.5: expected a value"),
        ([0.5, np.nan], [1.0, 1.0], "probability=nan: expected a value"),
        ([0.5, 0.5], [0.0, 0.0], "all weights are 0"),
    ],
)
def test_invalid_probabilities_and_weights_are_rejected(probability, weights, message):
    with pytest.raises(ValueError, match=message):
        reliability(np.array(probability), np.zeros(2), np.array(weights))
