"""The record of every dataset here: one clip of speech with its motion and labels."""

import numpy as np
import tensorflow_datasets as tfds

from deeptalk_jax.types import EMOTIONS, MOTION_DIM


def clip_features() -> tfds.features.FeaturesDict:
    """The features of a clip.

    Returns:
        audio: `[s]` int16, mono, 16 kHz.
        motion: `[t, 53]` float32, 25 Hz, `t = ceil(s / 640)`.
        visemes: `[t]` uint8, index into `VISEME_CLASSES` for every frame; empty where unknown.
        emotion: class, in the order of `EMOTIONS`.
        intensity: int32, 0 to 2 for levels 1 to 3.
        speaker: int32, number of the speaker.
        identity: int32, position among the train speakers; -1 for the others.
        clip_name: unique in the dataset.
        text: what is said; empty where unknown.
    """
    encoding = tfds.features.Encoding.BYTES
    return tfds.features.FeaturesDict(
        {
            "audio": tfds.features.Tensor(shape=(None,), dtype=np.int16, encoding=encoding),
            "motion": tfds.features.Tensor(shape=(None, MOTION_DIM), dtype=np.float32, encoding=encoding),
            "visemes": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding=encoding),
            "emotion": tfds.features.ClassLabel(names=list(EMOTIONS)),
            "intensity": np.int32,
            "speaker": np.int32,
            "identity": np.int32,
            "clip_name": tfds.features.Text(),
            "text": tfds.features.Text(),
        }
    )
