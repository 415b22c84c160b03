"""Gain and cosine of expressions, by hand."""

import numpy as np
import pytest

from deeptalk_jax.metrics.emotion_gain import emotion_gain, mean_expression, rising_share


def test_gain_is_the_projection_over_the_length_of_the_truth():
    truth = np.array([0.0, 2.0, 0.0])
    assert emotion_gain(truth, truth) == (1.0, 1.0)
    assert emotion_gain(-0.5 * truth, truth) == (-0.5, -1.0)
    # 3 along and 4 across: 3 of 2, at an angle with cosine 3/5.
    assert emotion_gain(np.array([4.0, 3.0, 0.0]), truth) == pytest.approx((1.5, 0.6))
    assert emotion_gain(np.zeros(3), truth) == (0.0, 0.0)


def test_a_true_expression_of_zero_is_refused():
    with pytest.raises(ValueError, match="does not differ from neutral"):
        emotion_gain(np.ones(3), np.zeros(3))


def test_mean_expression_leaves_the_jaw_out():
    motion = np.zeros((4, 53), np.float32)
    motion[:, 7], motion[:, 50] = [0.0, 1.0, 2.0, 5.0], 9.0
    mean = mean_expression(motion)
    assert mean.shape == (50,) and mean[7] == 2.0 and mean.sum() == 2.0


def test_rising_share_counts_sentences_that_rise_at_every_step():
    strengths = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [0.0, 0.0, 1.0], [-2.0, -1.0, 0.5]])
    shown = np.stack([np.zeros_like(strengths), strengths], axis=-1)  # [n, i, d]
    assert rising_share(shown, np.array([0.0, 2.0])) == 0.5
    assert rising_share(shown, np.array([0.0, -2.0])) == 0.0
