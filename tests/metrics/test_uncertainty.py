"""Confusion matrices, calibration and metrics of uncertainty, by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.calibration import brier_skill, reliability
from deeptalk_jax.metrics.classification import accuracy, class_accuracy, confusion_matrix
from deeptalk_jax.metrics.uncertainty import (
    group_means,
    grouped_rank_correlation,
    label_entropy,
    quantile_groups,
    rank_correlation,
    total_variance,
)


def test_confusion_matrix_by_hand():
    confusion = confusion_matrix(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 1, 1, 2]), 3)
    np.testing.assert_array_equal(confusion, [[1, 2, 0], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(class_accuracy(confusion), [1 / 3, 1 / 2, np.nan])
    assert accuracy(confusion) == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("labels", "predicted", "message"),
    [
        ([0, 1], [0], r"labels \(2,\) and predicted \(1,\) differ in shape"),
        ([0, 3], [0, 0], "class 3 is not between 0 and 2"),
        ([0, 0], [0, -1], "class -1 is not between 0 and 2"),
    ],
)
def test_wrong_labels_are_rejected(labels, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.array(labels), np.array(predicted), 3)


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


def test_total_variance_is_the_trace_of_the_covariance():
    np.testing.assert_allclose(total_variance(np.log([[1.0, 2.0, 3.0], [0.5, 0.5, 0.25]])), [6.0, 1.25])


def test_label_entropy_by_hand():
    # Label 0 has items 0 and 2, with all, half, and 3/4 of the probability.
    probability = np.array([[0.2, 1e-300, 0.1], [0.1, 0.3, 0.2], [0.5, 0.25, 0.25]])
    expected = [0.0, np.log(2), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)]
    for factor in (0.0, -5000.0):  # also for probabilities below the smallest float
        found = label_entropy(np.log(probability) + factor, np.array([0, 5, 0]))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    with pytest.raises(
        ValueError, match=r"log_probability \(3, 3\) and gallery_labels \(2,\) differ in items"
    ):
        label_entropy(probability, np.zeros(2))


def test_rank_correlation_by_hand():
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    assert rank_correlation(np.array([1.0, 2, 3, 4]), np.array([20, 10, 40, 30])) == pytest.approx(0.6)
    assert rank_correlation(np.array([1.0, 10, 100]), np.array([2, 1, 0])) == pytest.approx(-1.0)
    # Ties have their mean rank: 1.5 1.5 3 against 1 2 3, with covariance 1.5 and variances 1.5 and 2.
    assert rank_correlation(np.array([0, 0, 1]), np.array([1.0, 2, 3])) == pytest.approx(1.5 / np.sqrt(3))
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3)))
    with pytest.raises(ValueError, match="shapes differ"):
        rank_correlation(np.ones(3), np.ones(2))


def test_correlation_within_groups_excludes_differences_between_groups():
    groups = np.array([0, 0, 0, 1, 1, 2])
    first = np.array([1.0, 2, 3, 12, 11, 5])  # rises in group 0, falls in group 1; group 2 has one value
    second = np.array([1, 2, 3, 11, 12, 5])
    assert grouped_rank_correlation(first, second, groups) == pytest.approx((3 * 1.0 + 2 * -1.0) / 5)
    assert np.isnan(grouped_rank_correlation(first, second, np.arange(6)))


def test_quantile_groups_and_their_means():
    values = np.array([5.0, 1.0, 4.0, 2.0, 3.0])
    groups = quantile_groups(values, 2)
    np.testing.assert_array_equal(groups, [1, 0, 1, 0, 0])
    assert group_means(values, groups) == {0: 2.0, 1: 4.5}
    with pytest.raises(ValueError, match="5 values cannot be split into 6 groups"):
        quantile_groups(values, 6)
