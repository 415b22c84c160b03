import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from deeptalk_jax.losses.classification import balanced_class_weights, cross_entropy
from deeptalk_jax.losses.contrastive import (
    closed_form_sampled_distance,
    match_logits,
    match_loss,
    standard_normal_kl,
)
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.types import Gaussian


def gaussians(seed, rows, dim=4):
    mean, log_variance = jax.random.normal(jax.random.key(seed), (2, rows, dim))
    return Gaussian(mean / jnp.linalg.norm(mean, axis=-1, keepdims=True), log_variance - 1.0)


def test_distance_by_hand():
    a = Gaussian(jnp.array([[1.0, 0.0]]), jnp.log(jnp.array([[0.1, 0.2]])))
    b = Gaussian(jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.log(jnp.array([[0.3, 0.4], [0.5, 0.6]])))
    np.testing.assert_allclose(closed_form_sampled_distance(a, b), [[3.0, 1.4]], rtol=1e-6)


def test_distance_is_the_expected_squared_distance_of_samples():
    a, b = gaussians(0, 1), gaussians(1, 1)
    noise = jax.random.normal(jax.random.key(2), (2, 200_000, 4))
    samples = [g.mean + jnp.exp(g.log_variance / 2) * n for g, n in zip((a, b), noise, strict=True)]
    estimate = jnp.mean(jnp.sum(jnp.square(samples[0] - samples[1]), -1))
    np.testing.assert_allclose(closed_form_sampled_distance(a, b)[0, 0], estimate, rtol=0.01)


def test_match_loss_by_hand():
    logits = match_logits(jnp.array([[0.5, 2.0]]), jnp.array(5.0), jnp.array(5.0))
    np.testing.assert_allclose(logits, [[2.5, -5.0]])
    loss = match_loss(logits, jnp.array([[True, False]]))
    np.testing.assert_allclose(loss, 2 * np.log1p(np.exp([[-2.5, -5.0]])), rtol=1e-6)


def test_kl_against_scipy():
    gaussian = Gaussian(jnp.array([[0.6, -0.8]]), jnp.array([[-1.0, 0.5]]))
    std = np.exp(np.asarray(gaussian.log_variance) / 2)
    entropy = scipy.stats.norm.entropy(gaussian.mean, std)
    cross = 0.5 * np.log(2 * np.pi) + 0.5 * (np.asarray(gaussian.mean) ** 2 + std**2)
    np.testing.assert_allclose(standard_normal_kl(gaussian), cross - entropy, rtol=1e-5)


def test_masked_mean_by_hand():
    values = jnp.array([[1.0, 2.0], [3.0, jnp.nan]])
    mask = jnp.array([[True, True], [True, False]])
    np.testing.assert_allclose(masked_mean(values, mask), 2.0)
    weights = jnp.array([[1.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(masked_mean(values, mask, weights), 10.0 / 4.0)
    assert masked_mean(values, jnp.zeros_like(mask)) == 0.0
    np.testing.assert_allclose(masked_mean(jnp.arange(6.0).reshape(1, 2, 3), jnp.array([[True, False]])), 1.0)
    gradient = jax.grad(lambda v: masked_mean(v, mask))(values)
    np.testing.assert_allclose(gradient, [[1 / 3, 1 / 3], [1 / 3, 0]], rtol=1e-6)


def test_weighted_total():
    terms = {"a": jnp.array(2.0), "b": jnp.array(3.0)}
    assert weighted_total(terms, {"a": 0.5}) == 1.0
    with pytest.raises(KeyError, match="c"):
        weighted_total(terms, {"c": 1.0})


def test_balanced_weights_give_every_class_the_same_sum():
    counts = np.array([1, 3, 4])
    weights = balanced_class_weights(counts)
    np.testing.assert_allclose(weights * counts, [8 / 3] * 3, rtol=1e-6)
    with pytest.raises(ValueError, match=r"classes \[1\] have no example"):
        balanced_class_weights(np.array([2, 0]))


def test_cross_entropy_by_hand():
    logits = jnp.array([[0.0, jnp.log(3.0)]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1])), -np.log([0.75]), rtol=1e-6)
