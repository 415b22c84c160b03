"""Emotion centroids: the mean place of each emotion and intensity in DEE's space.

They define emotions that are given by name, such as `happy@2`. `stages/dee_statistics.py` measures them with the audio
tower on the training clips and stores them with the part dee. DEEPTalk publishes no centroids.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class EmotionCentroids(NamedTuple):
    """One Gaussian per emotion e, in the order of `types.EMOTIONS`, and intensity i, from 1 to 3.

    Attributes:
        mean: `[e, i, d]` mean of the means of the clips, scaled to unit length; 0 for a class without clips.
        log_variance: `[e, i, d]` log of the pooled variance: the mean of the variances of the clips plus the variance
            of their means.
        num_clips: `[e, i]` number of clips.
    """

    mean: np.ndarray
    log_variance: np.ndarray
    num_clips: np.ndarray


def nearest_emotion(
    statistics: Mapping[str, np.ndarray], mean: Float[np.ndarray, "n d"]
) -> Int[np.ndarray, " n"]:
    """Returns for each mean the emotion of the nearest centroid of any intensity.

    Args:
        statistics: statistics of the part dee, which have the fields of `EmotionCentroids`.
        mean: unit vectors, the means of Gaussians.
    """
    known = statistics["num_clips"] > 0
    nearest = np.argmax(mean @ statistics["mean"][known].T, axis=-1)  # all have unit length
    return np.nonzero(known)[0][nearest]


def named_emotions(statistics: Mapping[str, np.ndarray]) -> Float[np.ndarray, "e d"]:
    """Returns the vector of each emotion that is given by name without an intensity.

    Args:
        statistics: statistics of the part dee, which have the fields of `EmotionCentroids`.

    Returns:
        Means over the training clips, scaled to unit length; 0 for an emotion without clips.
    """
    return unit_vectors(np.einsum("ei,eid->ed", statistics["num_clips"], statistics["mean"])).astype(
        np.float32
    )


def unit_vectors(vectors: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    """Scales vectors to unit length; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-8)
