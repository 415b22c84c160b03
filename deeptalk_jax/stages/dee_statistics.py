"""Measures the emotion centroids of a trained DEE: the mean place of each emotion and intensity in its space.

They come from the audio tower, because the generator is trained on the means of that tower. With them an emotion can be
given by name at inference. DEEPTalk publishes no centroids.
"""

import operator
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.loader import clip_loader
from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids, unit_vectors
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.types import EMOTIONS, NUM_INTENSITIES, SAMPLES_PER_FRAME, Gaussian

PyTree = Any

_STEP_SAMPLES = (
    64 * SAMPLES_PER_FRAME
)  # batches are cut to a multiple of this, so that few shapes are compiled


class ClipEmotions(NamedTuple):
    """The emotion of every clip of a split, as DEE hears it in the first `data.max_clip_frames` of the clip.

    Attributes:
        gaussian: DEE's Gaussians of the speech, `[c, d]`, in the order of the split.
        emotion: `[c]` labels of the clips.
        intensity: `[c]` labels of the clips.
    """

    gaussian: Gaussian
    emotion: np.ndarray
    intensity: np.ndarray


def clip_emotions(dee: DEE, variables: PyTree, data: ConfigDict, split: str = "train") -> ClipEmotions:
    """Embeds the speech of every clip of a split.

    Args:
        dee: the module.
        variables: variables of DEE.
        data: the section `config.data`, which names the data set and the batch size.
        split: name of the split.

    Raises:
        UserError: see `clip_loader`.
    """

    @jax.jit
    def embed(variables, audio, num_samples):
        return dee.apply(variables, audio, num_samples, method=DEE.embed_audio)

    found = []
    for batch in clip_loader(
        data.data_dir, data.dataset, split, max_frames=data.max_clip_frames, batch_size=data.eval_batch_size
    ):
        # Rows are padded to the longest clip that is possible; most batches need less.
        length = -(-int(batch["num_samples"].max()) // _STEP_SAMPLES) * _STEP_SAMPLES
        gaussian = jax.device_get(embed(variables, batch["audio"][:, :length], batch["num_samples"]))
        rows = ClipEmotions(gaussian, batch["emotion"], batch["intensity"])
        found.append(jax.tree.map(operator.itemgetter(batch["valid"]), rows))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def emotion_centroids(clips: ClipEmotions) -> EmotionCentroids:
    """Computes the mean place of each emotion and intensity from labelled clips; clips without a label do not count."""
    clips = jax.tree.map(operator.itemgetter((clips.emotion >= 0) & (clips.intensity >= 0)), clips)
    shape = (len(EMOTIONS), NUM_INTENSITIES)
    counts = np.zeros(shape, np.int32)
    means, squares, variances = np.zeros((3, *shape, clips.gaussian.mean.shape[-1]))
    cells = (clips.emotion, clips.intensity)
    np.add.at(counts, cells, 1)
    np.add.at(means, cells, clips.gaussian.mean)
    np.add.at(squares, cells, np.square(clips.gaussian.mean, dtype=np.float64))
    np.add.at(variances, cells, np.exp(clips.gaussian.log_variance, dtype=np.float64))
    return _centroids(counts, means, squares, variances)


def _centroids(
    counts: np.ndarray, means: np.ndarray, squares: np.ndarray, variances: np.ndarray
) -> EmotionCentroids:
    """Computes centroids from the number of clips `[e, i]` and sums over the clips `[e, i, d]` of each class."""
    divisor = np.maximum(counts, 1)[..., None]
    means, squares, variances = means / divisor, squares / divisor, variances / divisor
    pooled = np.where(counts[..., None] > 0, variances + np.maximum(squares - means**2, 0.0), 1.0)
    return EmotionCentroids(unit_vectors(means).astype(np.float32), np.log(pooled).astype(np.float32), counts)
