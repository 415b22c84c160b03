"""ALiBi slopes and biases by hand."""

import numpy as np
import pytest

from deeptalk_jax.models.attention_bias import alibi_slopes, periodic_alibi, symmetric_alibi


def test_slopes_of_8_and_12_heads_are_the_published_ones():
    eight = [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(8) == tuple(eight)
    assert alibi_slopes(12) == (*eight, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5)
    with pytest.raises(ValueError, match="num_heads=0: expected at least 1"):
        alibi_slopes(0)


def test_symmetric_bias_by_hand():
    bias = np.asarray(symmetric_alibi(2, 3))
    np.testing.assert_allclose(bias[0], -0.0625 * np.array([[0, 1, 2], [1, 0, 1], [2, 1, 0]]))
    np.testing.assert_allclose(bias[1], bias[0] / 16)


def test_periodic_bias_is_flat_within_a_period():
    bias = np.asarray(periodic_alibi(8, 60, period=25))
    np.testing.assert_array_equal(bias[:, 0, :25], 0)
    np.testing.assert_allclose(
        bias[:, 0, 25:50], np.broadcast_to(-np.array(alibi_slopes(8))[:, None], (8, 25))
    )
    np.testing.assert_allclose(bias[:, 0, 50:], 2 * bias[:, 0, 25:35])
    np.testing.assert_array_equal(bias, bias.swapaxes(1, 2))
