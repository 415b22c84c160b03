"""Where the emotions lie in DEE's space: centroids of the training clips, by emotion and intensity.

They are of the audio tower, whose means the generator is trained on. DEEPTalk publishes none; with them an emotion
can be asked for by name.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int
from ml_collections import ConfigDict

from data_pipeline.loader import clip_loader
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.types import EMOTIONS, NUM_INTENSITIES, SAMPLES_PER_FRAME

PyTree = Any

_STEP_SAMPLES = 64 * SAMPLES_PER_FRAME  # lengths of batches are multiples of this: few programs


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


def emotion_centroids(dee: DEE, variables: PyTree, data: ConfigDict) -> EmotionCentroids:
    """Centroids of all clips of the training split, of each its first `data.max_clip_frames`.

    Args:
        dee: the module.
        variables: its variables.
        data: `config.data`: which data set, where, and how much of it at once.

    Raises:
        UserError: see `clip_loader`.
    """

    @jax.jit
    def embed(variables, audio, num_samples):
        return dee.apply(variables, audio, num_samples, method=DEE.embed_audio)

    shape = (len(EMOTIONS), NUM_INTENSITIES)
    counts = np.zeros(shape, np.int32)
    means, squares, variances = np.zeros((3, *shape, dee.audio_tower.embedding_dim))
    for batch in clip_loader(
        data.data_dir,
        data.dataset,
        "train",
        max_frames=data.max_clip_frames,
        batch_size=data.eval_batch_size,
    ):
        # Rows are as long as the longest clip may be; most batches need less.
        length = -(-int(batch["num_samples"].max()) // _STEP_SAMPLES) * _STEP_SAMPLES
        audio = batch["audio"][:, :length]
        gaussian = jax.device_get(embed(variables, audio, batch["num_samples"]))
        valid = batch["valid"]
        cells = (batch["emotion"][valid], batch["intensity"][valid])
        np.add.at(counts, cells, 1)
        np.add.at(means, cells, gaussian.mean[valid])
        np.add.at(squares, cells, np.square(gaussian.mean[valid], dtype=np.float64))
        np.add.at(variances, cells, np.exp(gaussian.log_variance[valid], dtype=np.float64))
    return _centroids(counts, means, squares, variances)


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
    return _unit(np.einsum("ei,eid->ed", statistics["num_clips"], statistics["mean"])).astype(np.float32)


def _unit(vectors: Float[np.ndarray, "... d"]) -> Float[np.ndarray, "... d"]:
    """Vectors scaled to unit length; 0 stays 0."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-8)


def _centroids(
    counts: np.ndarray, means: np.ndarray, squares: np.ndarray, variances: np.ndarray
) -> EmotionCentroids:
    """Centroids from sums over the clips of every class."""
    divisor = np.maximum(counts, 1)[..., None]
    means, squares, variances = means / divisor, squares / divisor, variances / divisor
    pooled = np.where(counts[..., None] > 0, variances + np.maximum(squares - means**2, 0.0), 1.0)
    return EmotionCentroids(_unit(means).astype(np.float32), np.log(pooled).astype(np.float32), counts)
