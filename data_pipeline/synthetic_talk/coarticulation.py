"""Coarticulation by dominance functions.

After Cohen and Massaro, "Modeling coarticulation in synthetic visual speech", 1993.
Each speech segment pulls every articulator towards a target with a dominance that falls off exponentially
with the time to the segment; the motion is the dominance-weighted mean of the targets. Departure: the
fall-off starts at the edge of the segment's core and not at its centre, so that a long vowel or pause is held
at its target.
"""

import numpy as np

CORE_FRACTION = 0.5  # of a segment's duration, around its centre


def dominance(
    times_s: np.ndarray,
    starts_s: np.ndarray,
    ends_s: np.ndarray,
    peaks: np.ndarray,
    anticipation_per_s: np.ndarray,
    carryover_per_s: np.ndarray,
) -> np.ndarray:
    """How strongly each segment pulls each articulator at each time.

    Args:
        times_s: `[t]` where to evaluate.
        starts_s: `[n]` first instant of each segment.
        ends_s: `[n]` last instant of each segment.
        peaks: `[n, p]` dominance inside the core (alpha in the paper).
        anticipation_per_s: `[p]` rate of growth before the core (theta of the onset).
        carryover_per_s: `[p]` rate of decay after the core (theta of the offset).

    Returns:
        `[t, n, p]` dominance: the peak inside the core, `peak * exp(-rate * time to the core)` outside.
    """
    centres = (starts_s + ends_s) / 2
    half_cores = CORE_FRACTION * (ends_s - starts_s) / 2
    offsets = times_s[:, None] - centres  # [t, n]
    distances = np.maximum(np.abs(offsets) - half_cores, 0)
    rates = np.where((offsets < 0)[..., None], anticipation_per_s, carryover_per_s)  # [t, n, p]
    return peaks * np.exp(-rates * distances[..., None])


def blend(weights: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The dominance-weighted mean of the targets.

    Args:
        weights: `[t, n, p]` dominance.
        targets: `[n, p]` targets.

    Returns:
        `[t, p]` motion of the articulators.
    """
    return np.einsum("tnp,np->tp", weights, targets) / weights.sum(axis=1)
