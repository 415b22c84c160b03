"""TFDS features of a record: one clip of speech with its facial motion and labels; and the basis of the motion.

All datasets share these features, so that the loaders can read each of them.
"""

import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.registry import METADATA
from deeptalk_jax.head.basis import Basis
from deeptalk_jax.types import EMOTIONS, MOTION_DIM


def clip_features() -> tfds.features.FeaturesDict:
    """Returns the features of a clip.

    * audio: `[s]` int16, mono, 16 kHz.
    * motion: `[t, 53]` float32, 25 Hz, `t = ceil(s / 640)`.
    * visemes: `[t]` uint8, index of each frame into `types.VISEME_CLASSES`; empty if unknown.
    * emotion: class label in the order of `types.EMOTIONS`.
    * intensity: int32, 0 to 2 for levels 1 to 3.
    * speaker: int32, number of the speaker in the dataset.
    * identity: int32, index of the speaker among the training speakers; -1 for all others.
    * clip_name: name of the clip, unique in the dataset.
    * text: spoken words; empty if unknown.
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


class BasisMetadata(tfds.core.MetadataDict):
    """Metadata for `tfds.core.DatasetInfo` that records the basis of the motion in `metadata.json`.

    Args:
        basis: what the motion coefficients stand for, see `deeptalk_jax.head.basis`.
    """

    def __init__(self, basis: Basis):
        super().__init__(basis=basis.record())

    def load_metadata(self, data_dir: str | os.PathLike) -> None:
        """Reads the metadata of a directory, if there are any; datasets of earlier versions have none."""
        if (Path(data_dir) / METADATA).exists():
            super().load_metadata(data_dir)
