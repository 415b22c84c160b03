"""Positions, correlations and quartiles of the code-swap study, by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.code_swap import position_between, spread, trajectory_correlation, without_mean


def test_position_between_two_points_by_hand():
    origin, target = np.array([[1.0, 0.0]]), np.array([[5.0, 0.0]])
    assert position_between(origin, origin, target) == 0.0
    assert position_between(target, origin, target) == 1.0
    # The distance from the line does not count.
    assert position_between(np.array([[2.0, 7.0]]), origin, target) == 0.25
    assert position_between(np.array([[-1.0, 0.0]]), origin, target) == -0.5
    assert np.isnan(position_between(target, origin, origin))
    with pytest.raises(ValueError, match=r"shapes differ: \(1, 2\), \(2,\), \(1, 2\)"):
        position_between(origin, np.zeros(2), target)


def test_correlation_of_trajectories_by_hand():
    first, second = np.random.default_rng(0).normal(size=(2, 7))
    assert trajectory_correlation(first, second) == pytest.approx(np.corrcoef(first, second)[0, 1])
    # Two coordinates with different means: covariances -2 + 0, divided by sqrt(2 * 2).
    path = np.array([[10.0, 3.0], [12.0, 3.0]])
    assert trajectory_correlation(path, np.array([[1.0, 5.0], [-1.0, 5.0]])) == pytest.approx(-1.0)
    assert (
        trajectory_correlation(path, np.array([[1.0, 5.0], [1.0, 6.0]])) == 0.0
    )  # different coordinates vary
    assert trajectory_correlation(path, np.ones((2, 2))) == 0.0
    np.testing.assert_array_equal(without_mean(path), [[-1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="shapes differ"):
        trajectory_correlation(path, path[:1])


def test_spread_ignores_values_that_are_not_finite():
    assert spread([4.0, 0.0, float("nan"), 1.0, 2.0, 3.0]) == {
        "median": 2.0,
        "lower_quartile": 1.0,
        "upper_quartile": 3.0,
        "num": 5,
    }
    with pytest.raises(ValueError, match="none of 1 values is finite"):
        spread([float("nan")])
