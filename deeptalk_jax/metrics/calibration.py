"""Whether a probability is what it says: of all events given 0.7, do 70 in 100 come true?"""

from typing import NamedTuple

import numpy as np


class Reliability(NamedTuple):
    """A reliability diagram (Guo et al., ICML 2017): events in bins of equal width by their probability.

    Attributes:
        edges: `[n + 1]` of the bins, from 0 to 1.
        confidence: `[n]` mean probability of a bin's events; NaN of an empty bin.
        frequency: `[n]` share of them that came true; NaN of an empty bin.
        share: `[n]` of all events, by weight; sums to 1.
    """

    edges: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray
    share: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """`sum(share * |frequency - confidence|)` (ECE; Guo et al., equation 3)."""
        filled = self.share > 0
        gap = np.abs(self.frequency[filled] - self.confidence[filled])
        return float(np.sum(self.share[filled] * gap))


def reliability(
    probability: np.ndarray, outcome: np.ndarray, weights: np.ndarray, *, num_bins: int = 15
) -> Reliability:
    """Bins events by their probability.

    Args:
        probability: of any shape, in [0, 1]; 1 belongs to the last bin.
        outcome: of the same shape, bool.
        weights: of the same shape, at least 0: how often an event counts.
        num_bins: number of bins.

    Raises:
        ValueError: shapes differ, a probability is not in [0, 1], or all weights are 0.
    """
    probability, outcome, weights = _checked(probability, outcome, weights)
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    places = np.minimum((probability * num_bins).astype(int), num_bins - 1)
    mass, predicted, true = (
        np.bincount(places, weights=values, minlength=num_bins)
        for values in (weights, weights * probability, weights * outcome)
    )
    filled = mass > 0
    confidence, frequency = (
        np.divide(values, mass, out=np.full(num_bins, np.nan), where=filled) for values in (predicted, true)
    )
    return Reliability(edges, confidence, frequency, mass / mass.sum())


def brier_skill(probability: np.ndarray, outcome: np.ndarray, weights: np.ndarray) -> float:
    """`1 - Brier score / that of the base rate`: 1 knows all, 0 knows no more than how frequent the event is.

    A probability that is always the base rate has no calibration error; this tells it from a good one.

    Args:
        probability: as `reliability`.
        outcome: as `reliability`.
        weights: as `reliability`.

    Returns:
        NaN where the event always or never comes true.

    Raises:
        ValueError: as `reliability`.
    """
    probability, outcome, weights = _checked(probability, outcome, weights)
    base_rate = np.average(outcome, weights=weights)
    if base_rate in (0.0, 1.0):
        return float("nan")
    score = np.average(np.square(probability - outcome), weights=weights)
    return float(1.0 - score / (base_rate * (1.0 - base_rate)))


def _checked(probability, outcome, weights):
    arrays = tuple(np.asarray(values, np.float64) for values in (probability, outcome, weights))
    if not arrays[0].shape == arrays[1].shape == arrays[2].shape:
        raise ValueError(f"shapes differ: {[values.shape for values in arrays]}")
    probability, outcome, weights = (values.ravel() for values in arrays)
    wrong = probability[~((probability >= 0) & (probability <= 1))]
    if len(wrong):
        raise ValueError(f"{wrong[0]} is no probability")
    if not weights.sum() > 0:
        raise ValueError("all weights are 0")
    return probability, outcome, weights
