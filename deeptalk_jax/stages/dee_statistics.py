"""Measures the emotion centroids of a trained DEE: the mean place of each emotion and intensity in its space.

They come from the audio tower, because the generator is trained on the means of that tower. With them an emotion can be
given by name at inference. DEEPTalk publishes no centroids.
"""

from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.loader import clip_loader
from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids, unit_vectors
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.types import EMOTIONS, NUM_INTENSITIES, SAMPLES_PER_FRAME

PyTree = Any

_STEP_SAMPLES = (
    64 * SAMPLES_PER_FRAME
)  # batches are cut to a multiple of this, so that few shapes are compiled


def emotion_centroids(dee: DEE, variables: PyTree, data: ConfigDict) -> EmotionCentroids:
    """Computes the centroids from the first `data.max_clip_frames` of each training clip.

    Args:
        dee: the module.
        variables: variables of DEE.
        data: the section `config.data`, which names the data set and the batch size.

    Raises:
        UserError: see `clip_loader`.
    """

    @jax.jit
    def embed(variables, audio, num_samples):
        return dee.apply(variables, audio, num_samples, method=DEE.embed_audio)

    shape = (len(EMOTIONS), NUM_INTENSITIES)
    counts = np.zeros(shape, np.int32)
    means, squares, variances = np.zeros((3, *shape, dee.embedding_dim))
    for batch in clip_loader(
        data.data_dir,
        data.dataset,
        "train",
        max_frames=data.max_clip_frames,
        batch_size=data.eval_batch_size,
    ):
        # Rows are padded to the longest clip that is possible; most batches need less.
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


def _centroids(
    counts: np.ndarray, means: np.ndarray, squares: np.ndarray, variances: np.ndarray
) -> EmotionCentroids:
    """Computes centroids from the number of clips `[e, i]` and sums over the clips `[e, i, d]` of each class."""
    divisor = np.maximum(counts, 1)[..., None]
    means, squares, variances = means / divisor, squares / divisor, variances / divisor
    pooled = np.where(counts[..., None] > 0, variances + np.maximum(squares - means**2, 0.0), 1.0)
    return EmotionCentroids(unit_vectors(means).astype(np.float32), np.log(pooled).astype(np.float32), counts)
