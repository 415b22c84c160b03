"""Coarticulation by dominance functions, after Cohen and Massaro (1993).

"Modeling coarticulation in synthetic visual speech": each speech segment pulls every articulator towards a target, with
a dominance that decays exponentially with the temporal distance from the segment. The motion is the dominance-weighted
mean of the targets. One detail departs from the paper: the decay starts at the edge of the segment's core and not at
its centre, so that a long vowel or pause stays at its target.
"""

import numpy as np

CORE_FRACTION = 0.5  # duration of the core, which is centred in its segment, as a fraction of the segment


def dominance(
    times_s: np.ndarray,
    starts_s: np.ndarray,
    ends_s: np.ndarray,
    peaks: np.ndarray,
    anticipation_per_s: np.ndarray,
    carryover_per_s: np.ndarray,
) -> np.ndarray:
    """Computes the dominance of each segment over each articulator at each time.

    Args:
        times_s: `[t]` times of the motion frames, in seconds.
        starts_s: `[n]` start of each segment, in seconds.
        ends_s: `[n]` end of each segment, in seconds.
        peaks: `[n, p]` dominance inside the core (alpha in the paper).
        anticipation_per_s: `[p]` rate of growth before the core, per second (theta of the onset).
        carryover_per_s: `[p]` rate of decay after the core, per second (theta of the offset).

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
    """Computes the dominance-weighted mean of the targets.

    Args:
        weights: `[t, n, p]` dominance of each segment.
        targets: `[n, p]` target of each segment.

    Returns:
        `[t, p]` motion of the articulators.
    """
    return np.einsum("tnp,np->tp", weights, targets) / weights.sum(axis=1)
