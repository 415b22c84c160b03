"""Diversity of samples by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.load import load_head
from deeptalk_jax.metrics.diversity import Diversity, diversity_factors


def factors_and_lip_share():
    """Factors of a head with two expression directions, and the share of lip vertices in the face.

    The first direction moves every vertex by (3, 4, 0) mm, the second moves only the lips, by 1 mm.
    """
    head = load_head("procedural")
    directions = np.zeros_like(np.asarray(head.expression_directions))
    directions[:, 0, 0], directions[:, 1, 0] = 3e-3, 4e-3
    directions[head.masks["lips"], 2, 1] = 1e-3
    share = np.isin(head.masks["face"], head.masks["lips"]).mean()
    return diversity_factors(head.replace(expression_directions=jnp.asarray(directions))), share


def test_mean_distance_of_pairs_by_hand():
    factors, share = factors_and_lip_share()
    samples = np.zeros((3, 40, 53), np.float32)
    samples[1, :, 0] = 1.0  # distances in mm: 5 from sample 0 to 1 and to 2, 10 from 1 to 2
    samples[2, :, 0] = -1.0
    still, lips = np.zeros((3, 20, 53), np.float32), np.zeros((3, 20, 53), np.float32)
    lips[0, :, 1] = 1.0
    diversity = Diversity(factors)
    diversity.add(samples)
    assert diversity.mean_mm("face") == pytest.approx(20 / 3, rel=1e-4)
    diversity.add(still)
    assert diversity.mean_mm("face") == pytest.approx(20 / 3 * 40 / 60, rel=1e-4)
    both = Diversity(factors)
    both.add(lips)
    assert both.mean_mm("lips") == pytest.approx(2 / 3, rel=1e-3)
    assert both.mean_mm("face") == pytest.approx(2 / 3 * np.sqrt(share), rel=1e-3, abs=1e-4)


def test_a_single_sample_is_rejected():
    with pytest.raises(ValueError, match="number of samples is 1; expected 2 or more"):
        Diversity({}).add(np.zeros((1, 4, 53), np.float32))
