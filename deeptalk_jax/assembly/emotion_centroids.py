"""Emotion centroids in DEE's space, by emotion and intensity: what a name such as `happy@2` refers to.

They are statistics of the audio tower over the training clips (`stages/dee_statistics.py` measures them), stored with
the part DEE. The generator is trained on means of that tower. DEEPTalk publishes no such centroids.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class EmotionCentroids(NamedTuple):
    """A Gaussian for every emotion e, in the order of `types.EMOTIONS`, and intensity i, levels 1 to 3.

    Attributes:
        mean: `[e, i, d]` mean of the clips' means, of unit length; 0 where there is no clip.
        log_variance: `[e, i, d]` of the clips' Gaussians pooled: the mean of their variances, plus the variance of
            their means.
        num_clips: `[e, i]`.
    """

    mean: np.ndarray
    log_variance: np.ndarray
    num_clips: np.ndarray


def nearest_emotion(
    statistics: Mapping[str, np.ndarray], mean: Float[np.ndarray, "n d"]
) -> Int[np.ndarray, " n"]:
    """Emotion of the centroid, of any intensity, that lies nearest to each mean.

    Args:
        statistics: those of the part DEE, with the fields of `EmotionCentroids`.
        mean: of Gaussians, of unit length.
    """
    known = statistics["num_clips"] > 0
    nearest = np.argmax(mean @ statistics["mean"][known].T, axis=-1)  # all of unit length
    return np.nonzero(known)[0][nearest]


def named_emotions(statistics: Mapping[str, np.ndarray]) -> Float[np.ndarray, "e d"]:
    """The vector of each emotion, whatever its intensity, as it is asked for by its name alone.

    Args:
        statistics: those of the part DEE, with the fields of `EmotionCentroids`.

    Returns:
        Means over the training clips, of unit length; 0 for an emotion without clips.
    """
    return unit_vectors(np.einsum("ei,eid->ed", statistics["num_clips"], statistics["mean"])).astype(
        np.float32
    )


def unit_vectors(vectors: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    """Vectors scaled to unit length; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-8)
