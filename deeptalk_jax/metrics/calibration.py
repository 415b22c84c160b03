"""Calibration of probabilities: of all events with a predicted probability of 0.7, do 70 % occur?"""

from typing import NamedTuple

import numpy as np


class Reliability(NamedTuple):
    """A reliability diagram (Guo et al., ICML 2017): events in bins of equal width by predicted probability.

    Attributes:
        edges: `[n + 1]` edges of the bins, from 0 to 1.
        confidence: `[n]` mean predicted probability of the events of a bin; NaN if the bin is empty.
        frequency: `[n]` share of the events of a bin that occurred; NaN if the bin is empty.
        share: `[n]` share of all events that is in a bin, by weight; sums to 1.
    """

    edges: np.ndarray
    confidence: np.ndarray
    frequency: np.ndarray
    share: np.ndarray

    @property
    def expected_calibration_error(self) -> float:
        """Expected calibration error, `sum(share * |frequency - confidence|)` (ECE; Guo et al., equation 3)."""
        filled = self.share > 0
        gap = np.abs(self.frequency[filled] - self.confidence[filled])
        return float(np.sum(self.share[filled] * gap))


def reliability(
    probability: np.ndarray, outcome: np.ndarray, weights: np.ndarray, *, num_bins: int = 15
) -> Reliability:
    """Assigns events to bins by their predicted probability.

    Args:
        probability: predicted probabilities in [0, 1], of any shape; 1 belongs to the last bin.
        outcome: whether the events occurred, bool of the same shape.
        weights: weights of the events, of the same shape and not negative.
        num_bins: number of bins; Guo et al. use 15.

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
    """Returns the Brier skill score, `1 - Brier score / Brier score of the base rate` (Brier, 1950; Murphy, 1973).

    It is 1 for certain and correct predictions, and 0 if the base rate is always predicted. The latter has no
    calibration error, so this score is needed beside `reliability`.

    Args:
        probability: as in `reliability`.
        outcome: as in `reliability`.
        weights: as in `reliability`.

    Returns:
        The score; NaN if the event always or never occurs.

    Raises:
        ValueError: as in `reliability`.
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
        raise ValueError(f"probability={wrong[0]}: expected a value in [0, 1]")
    if not weights.sum() > 0:
        raise ValueError("all weights are 0; expected at least one above 0")
    return probability, outcome, weights
