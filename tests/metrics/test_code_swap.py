import numpy as np
import pytest

from deeptalk_jax.metrics.code_swap import position_between, spread, trajectory_correlation, without_mean


def test_position_by_hand():
    origin, target = np.array([[1.0, 0.0]]), np.array([[5.0, 0.0]])
    assert position_between(origin, origin, target) == 0.0
    assert position_between(target, origin, target) == 1.0
    assert (
        position_between(np.array([[2.0, 7.0]]), origin, target) == 0.25
    )  # what lies off the line does not count
    assert position_between(np.array([[-1.0, 0.0]]), origin, target) == -0.5
    assert np.isnan(position_between(target, origin, origin))
    with pytest.raises(ValueError, match=r"shapes differ: \(1, 2\), \(2,\), \(1, 2\)"):
        position_between(origin, np.zeros(2), target)


def test_correlation_of_trajectories():
    first, second = np.random.default_rng(0).normal(size=(2, 7))
    assert trajectory_correlation(first, second) == pytest.approx(np.corrcoef(first, second)[0, 1])
    # Two coordinates about different means: covariances -2 + 0 over sqrt(2 * 2).
    path = np.array([[10.0, 3.0], [12.0, 3.0]])
    assert trajectory_correlation(path, np.array([[1.0, 5.0], [-1.0, 5.0]])) == pytest.approx(-1.0)
    assert trajectory_correlation(path, np.array([[1.0, 5.0], [1.0, 6.0]])) == 0.0  # another coordinate moves
    assert trajectory_correlation(path, np.ones((2, 2))) == 0.0
    np.testing.assert_array_equal(without_mean(path), [[-1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="shapes differ"):
        trajectory_correlation(path, path[:1])


def test_spread_leaves_out_what_is_not_finite():
    assert spread([4.0, 0.0, float("nan"), 1.0, 2.0, 3.0]) == {
        "median": 2.0,
        "lower_quartile": 1.0,
        "upper_quartile": 3.0,
        "num": 5,
    }
    with pytest.raises(ValueError, match="none of 1 values is finite"):
        spread([float("nan")])
