import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.load import load_head
from deeptalk_jax.metrics.diversity import Diversity


@pytest.fixture(scope="module")
def head():
    """One expression direction moves every vertex by (3, 4, 0) mm, another only the lips, by 1 mm."""
    head = load_head("procedural")
    directions = np.zeros_like(np.asarray(head.expression_directions))
    directions[:, 0, 0], directions[:, 1, 0] = 3e-3, 4e-3
    directions[head.masks["lips"], 2, 1] = 1e-3
    return head.replace(expression_directions=jnp.asarray(directions))


def test_pairs_by_hand(head):
    samples = np.zeros((3, 40, 53), np.float32)
    samples[1, :, 0] = 1.0  # 5 mm from 0; 1 is 10 mm from 2, which is 5 mm from 0
    samples[2, :, 0] = -1.0
    still, lips = np.zeros((3, 20, 53), np.float32), np.zeros((3, 20, 53), np.float32)
    lips[0, :, 1] = 1.0
    diversity = Diversity(head)
    diversity.add(samples)
    assert diversity.mean_mm("face") == pytest.approx(20 / 3, rel=1e-4)
    diversity.add(still)
    assert diversity.mean_mm("face") == pytest.approx(20 / 3 * 40 / 60, rel=1e-4)
    both = Diversity(head)
    both.add(lips)
    assert both.mean_mm("lips") == pytest.approx(2 / 3, rel=1e-3)
    share = np.isin(head.masks["face"], head.masks["lips"]).mean()
    assert both.mean_mm("face") == pytest.approx(2 / 3 * np.sqrt(share), rel=1e-3, abs=1e-4)


def test_one_sample_makes_no_pair(head):
    with pytest.raises(ValueError, match="1 sample makes no pair"):
        Diversity(head).add(np.zeros((1, 4, 53), np.float32))
