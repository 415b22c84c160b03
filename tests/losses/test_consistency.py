"""Emotion consistency by hand, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.losses.consistency import CONSISTENCIES, emotion_consistency
from deeptalk_jax.types import Gaussian
from tests.support.finite_differences import check_gradients


def gaussian(mean, variance):
    return Gaussian(np.float32(mean), np.log(np.float32(variance)))


A = gaussian([[1.0, 0.0], [0.6, 0.8]], [[0.1, 0.2], [0.3, 0.1]])
B = gaussian([[0.0, 1.0], [0.6, 0.8]], [[0.3, 0.4], [0.2, 0.2]])


@pytest.mark.parametrize(
    # The distances of "csd" are 2 + 1.0 and 0 + 0.8, and the logits 5 - 5 d.
    ("kind", "expected"),
    [("mean", [2.0, 0.0]), ("csd", np.log1p(np.exp([10.0, -1.0])))],
)
def test_both_kinds_by_hand(kind, expected):
    for pair in ((A, B), (B, A)):
        np.testing.assert_allclose(emotion_consistency(kind, *pair, 5.0, 5.0), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", CONSISTENCIES)
def test_gradients_equal_finite_differences_and_reduce_the_distance(kind):
    def loss(mean, log_variance):
        return emotion_consistency(kind, A, Gaussian(mean, log_variance), 1.3, 0.7)

    check_gradients(loss, *B)
    gradient = jax.jit(jax.grad(lambda mean: jnp.sum(loss(mean, B.log_variance))))(B.mean)
    assert np.vdot(gradient[0], A.mean[0] - B.mean[0]) < 0  # the loss falls towards the speech
    np.testing.assert_allclose(gradient[1], 0.0, atol=1e-6)


def test_unknown_kind_lists_the_choices():
    with pytest.raises(ConfigError, match=r"consistency='cosine' is not one of \('mean', 'csd'\)"):
        emotion_consistency("cosine", A, B, 5.0, 5.0)
