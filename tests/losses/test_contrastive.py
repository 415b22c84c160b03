"""PCME, PCME++ and InfoNCE by hand, against SciPy and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

from deeptalk_jax.losses.contrastive import (
    cosine_logits,
    gaussian_samples,
    info_nce,
    info_nce_scale,
    match_logits,
    match_loss,
    pseudo_match_loss,
    pseudo_matches,
    sampled_match_logits,
    standard_normal_kl,
)
from deeptalk_jax.types import Gaussian
from tests.support.finite_differences import check_gradients

pseudo_loss = jax.jit(pseudo_match_loss)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_match_loss_by_hand():
    logits = match_logits(jnp.array([[0.5, 2.0]]), jnp.array(5.0), jnp.array(5.0))
    np.testing.assert_allclose(logits, [[2.5, -5.0]])
    loss = match_loss(logits, jnp.array([[True, False]]))
    np.testing.assert_allclose(loss, 2 * np.log1p(np.exp([[-2.5, -5.0]])), rtol=1e-6)


def test_kl_equals_scipy():
    gaussian = Gaussian(jnp.array([[0.6, -0.8]]), jnp.array([[-1.0, 0.5]]))
    std = np.exp(np.asarray(gaussian.log_variance) / 2)
    entropy = scipy.stats.norm.entropy(gaussian.mean, std)
    cross = 0.5 * np.log(2 * np.pi) + 0.5 * (np.asarray(gaussian.mean) ** 2 + std**2)
    np.testing.assert_allclose(standard_normal_kl(gaussian), cross - entropy, rtol=1e-5)


def test_gaussian_samples_by_hand():
    gaussian = Gaussian(jnp.array([[1.0, -1.0]]), jnp.log(jnp.array([[4.0, 0.25]])))
    noise = jnp.array([[[0.0, 0.0], [1.0, 2.0], [-0.5, 1.0]]])
    expected = [[[1.0, -1.0], [3.0, 0.0], [0.0, -0.5]]]
    np.testing.assert_allclose(gaussian_samples(gaussian, noise), expected, atol=1e-6)


def test_sampled_match_logits_by_hand():
    a = jnp.array([[[0.0, 0.0], [3.0, 4.0]]])  # one row of two samples
    b = jnp.array([[[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]], [[3.0, 0.0], [3.0, 0.0], [3.0, 8.0]]])
    distances = np.array([[0, 5, 4, 5, 0, 3], [3, 3, np.sqrt(73), 4, 4, 4]])
    match = sigmoid(2 * (1.0 - 0.3 * distances)).mean(-1)
    expected = np.log(match / (1 - match))[None]
    np.testing.assert_allclose(jax.jit(sampled_match_logits)(a, b, 0.3, 1.0), expected, rtol=1e-5)


def test_sampled_match_logits_are_finite_for_distant_and_equal_points():
    """Values and gradients are affected neither by underflow of the probability nor by the square root at 0."""
    a = jnp.array([[[0.0, 0.0]], [[100.0, 0.0]]])

    @jax.jit
    def total(a, b):
        logits = sampled_match_logits(a, b, 5.0, 5.0)
        return jnp.sum(logits), logits

    gradients, value = jax.grad(total, argnums=(0, 1), has_aux=True)(a, a)
    np.testing.assert_allclose(value, [[10.0, -990.0], [-990.0, 10.0]], rtol=1e-4)
    for gradient in gradients:
        np.testing.assert_allclose(gradient[:, 0], [[10.0, 0.0], [-10.0, 0.0]], rtol=1e-4)


def test_gradients_of_sampled_match_logits_equal_finite_differences():
    a, b = np.random.default_rng(0).standard_normal((2, 2, 3, 4))
    check_gradients(sampled_match_logits, a, b[:, :2], 0.7, 0.4)


def test_pseudo_positives_by_hand():
    logits = np.array([[2.0, 3.0, 1.0], [0.0, 5.0, -1.0], [1.0, 4.5, 4.0]], np.float32)
    diagonal = np.eye(3, dtype=bool)
    rows = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 1]], bool)
    np.testing.assert_array_equal(pseudo_matches(logits, diagonal), rows)
    # In every column the match is the most likely pair, so there are no pseudo-positives.
    softplus = np.log1p(np.exp(logits))
    np.testing.assert_allclose(pseudo_loss(logits, diagonal), softplus - rows * logits, rtol=1e-5)
    np.testing.assert_allclose(pseudo_loss(logits.T, diagonal), (softplus - diagonal * logits).T, rtol=1e-5)


def test_pseudo_positives_of_rows_with_several_or_no_matches():
    logits = jnp.array([[1.0, 4.0, 2.0, 0.0], [1.0, 4.0, 2.0, 0.0]])
    matches = jnp.array([[True, True, False, False], [False] * 4])
    expected = [[True, True, True, False], [False] * 4]
    np.testing.assert_array_equal(pseudo_matches(logits, matches), expected)


def test_both_match_losses_are_equal_without_pseudo_positives():
    logits, matches = 9.0 * np.eye(3, dtype=np.float32) - 1.0, np.eye(3, dtype=bool)
    both = pseudo_loss(logits, matches) + pseudo_loss(logits.T, matches).T
    np.testing.assert_allclose(both, match_loss(logits, matches), rtol=1e-6)


def test_info_nce_by_hand():
    logits = jnp.log(jnp.array([[1.0, 3.0, 4.0], [2.0, 2.0, 12.0]]))
    one = jnp.array([[True, False, False], [False, False, True]])
    np.testing.assert_allclose(jax.jit(info_nce)(logits, one), -np.log([1 / 8, 12 / 16]), rtol=1e-6)
    several = jnp.array([[True, True, False], [True, True, True]])
    expected = [-np.log([1 / 8, 3 / 8]).mean(), -np.log([1 / 8, 1 / 8, 3 / 4]).mean()]
    np.testing.assert_allclose(jax.jit(info_nce)(logits, several), expected, rtol=1e-6)


def test_info_nce_of_pairs_equals_the_cross_entropy_of_the_diagonal():
    a, b = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)

    @jax.jit
    def compared(a, b):
        logits = cosine_logits(a, b, 2.0)
        expected = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.arange(4))
        return logits, info_nce(logits, jnp.eye(4, dtype=bool)), expected

    logits, losses, expected = compared(a, b)
    np.testing.assert_allclose(logits, 2.0 * a @ b.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


@pytest.mark.parametrize(("log_scale", "scale"), [(0.0, 1.0), (2.6593, 1 / 0.07), (4.7, 100.0), (9.0, 100.0)])
def test_info_nce_scale_is_clipped_and_keeps_its_gradient(log_scale, scale):
    value, gradient = jax.jit(jax.value_and_grad(info_nce_scale))(log_scale)
    np.testing.assert_allclose([value, gradient], scale, rtol=1e-4)
