"""Metrics of predicted variances, by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.uncertainty import (
    group_means,
    grouped_rank_correlation,
    label_entropy,
    quantile_groups,
    rank_correlation,
    total_variance,
)


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
