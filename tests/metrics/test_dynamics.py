"""Upper face dynamics deviation by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.load import load_head
from deeptalk_jax.metrics.dynamics import DynamicsDeviation


@pytest.fixture(scope="module")
def head():
    """Head with one expression direction, which moves every vertex by (3, 4, 0) mm."""
    head = load_head("procedural")
    directions = jnp.zeros_like(head.expression_directions)
    return head.replace(expression_directions=directions.at[:, 0, 0].set(3e-3).at[:, 1, 0].set(4e-3))


def moving(amplitude, num_frames):
    """Motion that alternates between 0 and 5 * amplitude mm from rest, a deviation of 2.5 * amplitude mm."""
    motion = np.zeros((num_frames, 53), np.float32)
    motion[::2, 0] = amplitude
    return motion


def test_mean_absolute_deviation_by_hand(head):
    deviation = DynamicsDeviation(head)
    deviation.add(
        moving(1.0, 8), stiff=np.zeros((8, 53), np.float32), half=moving(0.5, 8), same=moving(1.0, 8)
    )
    deviation.add(moving(1.0, 130), stiff=moving(3.0, 130), half=moving(1.0, 130))
    assert deviation.value_mm("stiff") == pytest.approx((2.5 + 5.0) / 2, rel=1e-3)  # signs do not cancel
    assert deviation.value_mm("half") == pytest.approx(1.25 / 2, rel=1e-3)
    assert deviation.value_mm("same") == pytest.approx(0.0, abs=1e-4)
    with pytest.raises(ValueError, match=r"other \(4, 53\) and target \(8, 53\) differ in shape"):
        deviation.add(moving(1.0, 8), other=moving(1.0, 4))
