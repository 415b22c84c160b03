"""Statistics of a whole split: class counts and the mean pose.

Stages compute class weights and a constant baseline from them before training.
"""

from pathlib import Path

import numpy as np

from data_pipeline.records import open_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import EMOTIONS, MOTION_DIM, VISEME_CLASSES


def emotion_frame_counts(data_dir: str | Path, dataset: str, split: str) -> np.ndarray:
    """Returns the number of frames of each emotion, `[8]` float64, in the order of `types.EMOTIONS`.

    Raises:
        UserError: The dataset or split does not exist.
    """
    counts = np.zeros(len(EMOTIONS))
    for record in open_split(data_dir, dataset, split):
        counts[record.labels["emotion"]] += len(record.motion)
    return counts


def viseme_frame_counts(data_dir: str | Path, dataset: str, split: str) -> np.ndarray:
    """Returns the number of frames of each viseme class, `[12]` float64, in the order of `types.VISEME_CLASSES`.

    Raises:
        UserError: The dataset or split does not exist, or its records have no visemes.
    """
    counts = np.zeros(len(VISEME_CLASSES))
    for record in open_split(data_dir, dataset, split):
        counts += np.bincount(record.visemes, minlength=len(VISEME_CLASSES))
    if not counts.any():
        raise UserError(
            f"records of {dataset!r} in {data_dir} have no visemes; expected version 1.3.0 or later of synthetic_talk"
        )
    return counts


def mean_motion(data_dir: str | Path, dataset: str, split: str) -> np.ndarray:
    """Returns the mean over all frames, `[53]` float32: the constant prediction with the smallest squared error.

    Raises:
        UserError: The dataset or split does not exist.
    """
    total, num_frames = np.zeros(MOTION_DIM), 0
    for record in open_split(data_dir, dataset, split):
        total += record.motion.sum(axis=0, dtype=np.float64)
        num_frames += len(record.motion)
    return (total / num_frames).astype(np.float32)
