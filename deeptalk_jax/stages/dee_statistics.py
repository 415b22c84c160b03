"""Where the emotions lie in DEE's space: centroids of the training clips, by emotion and intensity.

They are of the audio tower, whose means the generator is trained on. DEEPTalk publishes none; with them an emotion
can be asked for by name.
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

_STEP_SAMPLES = 64 * SAMPLES_PER_FRAME  # lengths of batches are multiples of this: few programs


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


def _centroids(
    counts: np.ndarray, means: np.ndarray, squares: np.ndarray, variances: np.ndarray
) -> EmotionCentroids:
    """Centroids from sums over the clips of every class."""
    divisor = np.maximum(counts, 1)[..., None]
    means, squares, variances = means / divisor, squares / divisor, variances / divisor
    pooled = np.where(counts[..., None] > 0, variances + np.maximum(squares - means**2, 0.0), 1.0)
    return EmotionCentroids(unit_vectors(means).astype(np.float32), np.log(pooled).astype(np.float32), counts)
