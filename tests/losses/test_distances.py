"""Distances of Gaussians by hand, against samples and quantiles, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.losses.distances import (
    DISTANCES,
    gaussian_distance,
    paired_sampled_distance,
    squared_euclidean_distance,
)
from deeptalk_jax.types import Gaussian
from tests.support.finite_differences import check_gradients

distance_of = jax.jit(gaussian_distance, static_argnums=0)


def gaussians(seed, rows, dim=4):
    mean, log_variance = np.random.default_rng(seed).standard_normal((2, rows, dim)).astype(np.float32)
    return Gaussian(mean / np.linalg.norm(mean, axis=-1, keepdims=True), log_variance - 1.0)


@pytest.mark.parametrize(
    # Squared distances of the means, plus all variances (0.01 + 0.04, 0.09 + 0.25 and 0.01 + 0.64) for "csd", or plus
    # the squared differences of the standard deviations for "wasserstein".
    ("kind", "expected"),
    [("csd", [[2.39, 0.7]]), ("wasserstein", [[2.13, 0.36]])],
)
def test_distances_by_hand(kind, expected):
    a = Gaussian(jnp.array([[1.0, 0.0]]), 2 * jnp.log(jnp.array([[0.1, 0.2]])))
    b = Gaussian(jnp.array([[0.0, 1.0], [1.0, 0.0]]), 2 * jnp.log(jnp.array([[0.3, 0.5], [0.1, 0.8]])))
    np.testing.assert_allclose(distance_of(kind, a, b), expected, rtol=1e-5)


def test_unknown_distance_lists_the_choices():
    with pytest.raises(ConfigError, match=r"distance='kl' is not one of \('csd', 'wasserstein'\)"):
        gaussian_distance("kl", gaussians(0, 2), gaussians(1, 2))


def test_sampled_distance_equals_the_mean_squared_distance_of_samples():
    a, b = gaussians(0, 1), gaussians(1, 1)
    noise = np.random.default_rng(2).standard_normal((2, 200_000, 4))
    samples = [g.mean + np.exp(g.log_variance / 2) * n for g, n in zip((a, b), noise, strict=True)]
    estimate = np.square(samples[0] - samples[1]).sum(-1).mean()
    np.testing.assert_allclose(distance_of("csd", a, b)[0, 0], estimate, rtol=0.01)


def test_wasserstein_distance_equals_the_cost_of_the_optimal_transport():
    """In one dimension the optimal transport connects equal quantiles, and costs add over channels."""
    a, b = gaussians(0, 1), gaussians(1, 1)
    share = (np.arange(100_000) + 0.5) / 100_000
    quantiles = [scipy.stats.norm.ppf(share[:, None], g.mean, np.exp(g.log_variance / 2)) for g in (a, b)]
    cost = np.square(quantiles[0] - quantiles[1]).mean(0).sum()
    np.testing.assert_allclose(distance_of("wasserstein", a, b)[0, 0], cost, rtol=1e-3)


def test_paired_distance_equals_the_diagonal_of_all_distances():
    a, b = gaussians(0, 5), gaussians(1, 5)
    expected = np.diag(distance_of("csd", a, b))
    np.testing.assert_allclose(jax.jit(paired_sampled_distance)(a, b), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", DISTANCES)
def test_gradients_equal_finite_differences(kind):
    def distance(*moments):
        return gaussian_distance(kind, Gaussian(*moments[:2]), Gaussian(*moments[2:]))

    check_gradients(distance, *gaussians(0, 2), *gaussians(1, 3))


def test_distance_of_equal_points_is_zero_with_a_finite_gradient():
    points = gaussians(3, 50, 128).mean

    @jax.jit
    def total(x):
        distance = squared_euclidean_distance(x, points)
        return jnp.sum(distance), distance

    (_, distance), gradient = jax.value_and_grad(total, has_aux=True)(points)
    assert np.min(distance) >= 0.0
    np.testing.assert_allclose(np.diag(distance), 0.0, atol=1e-6)
    assert np.isfinite(gradient).all()
