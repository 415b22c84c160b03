"""Numbers of a whole split that losses and metrics need."""

from pathlib import Path

import numpy as np

from data_pipeline.records import open_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import EMOTIONS, MOTION_DIM, VISEME_CLASSES


def emotion_frame_counts(data_dir: str | Path, dataset: str, split: str) -> np.ndarray:
    """`[8]` frames of every emotion, in the order of `types.EMOTIONS`.

    Raises:
        UserError: see `records.open_split`.
    """
    counts = np.zeros(len(EMOTIONS))
    for record in open_split(data_dir, dataset, split):
        counts[record.labels["emotion"]] += len(record.motion)
    return counts


def viseme_frame_counts(data_dir: str | Path, dataset: str, split: str) -> np.ndarray:
    """Frames of every class of `types.VISEME_CLASSES`.

    Raises:
        UserError: see `records.open_split`; or no record says which viseme its frames are.
    """
    counts = np.zeros(len(VISEME_CLASSES))
    for record in open_split(data_dir, dataset, split):
        counts += np.bincount(record.visemes, minlength=len(VISEME_CLASSES))
    if not counts.any():
        raise UserError(
            f"records of {dataset!r} in {data_dir} hold no visemes; synthetic_talk has them from 1.3.0 on"
        )
    return counts


def mean_motion(data_dir: str | Path, dataset: str, split: str) -> np.ndarray:
    """`[53]` float32 mean over all frames: the pose that a motion-less prediction does best with.

    Raises:
        UserError: see `records.open_split`.
    """
    total, num_frames = np.zeros(MOTION_DIM), 0
    for record in open_split(data_dir, dataset, split):
        total += record.motion.sum(axis=0, dtype=np.float64)
        num_frames += len(record.motion)
    return (total / num_frames).astype(np.float32)
