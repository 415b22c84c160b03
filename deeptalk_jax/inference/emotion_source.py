"""Where the emotion of a motion may come from: sound, another motion, names, or a track over time."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from deeptalk_jax.assembly.build import build_dee, build_fer, init_fer
from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids
from deeptalk_jax.assembly.model_dir import check_variables, load_part
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.animator import Animator
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.emotion_blend import EmotionTable, Moments, parse_blend
from deeptalk_jax.inference.emotion_track import EmotionTrack, TrackRow, read_track, track_of_rows
from deeptalk_jax.inference.motion import Motion, read_motion
from deeptalk_jax.inference.pipeline import emotion_of, pooled
from deeptalk_jax.inference.windows import bucket_for, cut_pieces
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.types import MOTION_DIM, MOTION_RATE_HZ, Gaussian

MotionSource = str | os.PathLike | np.ndarray | Motion


class EmotionSpace:
    """DEE's space of a model directory. FER and the motion tower are read from it when a motion is given.

    Args:
        directory: the model directory.
        animator: runs the audio tower.
        statistics: of the part dee; of its `EmotionCentroids`, or empty.
    """

    def __init__(
        self, directory: str | os.PathLike, animator: Animator, statistics: Mapping[str, np.ndarray]
    ):
        self._directory, self._animator, self._statistics = Path(directory), animator, statistics

    def of_clip(self, clip: Clip, batch_size: int) -> Gaussian:
        """Gaussian `[d]` of speech of any length."""
        return _of_row(emotion_of(self._animator, clip, batch_size))

    def of_motion(self, motion: MotionSource) -> Gaussian:
        """Gaussian `[d]` of a motion of any length, windows of 10 s pooled as those of speech are.

        Raises:
            UserError: the motion cannot be used, or the directory holds no FER.
        """
        frames = read_motion(motion)
        embed, longest = self._motion_tower
        starts = cut_pieces(len(frames), longest, shortest=MOTION_RATE_HZ)
        if self._animator.options.emotion_windows == "first_10s":
            starts = starts[:1]
        gaussians, lengths = [], []
        for start in starts:
            piece = frames[start : start + longest]
            padded = np.zeros((1, bucket_for(len(piece), longest), MOTION_DIM), np.float32)
            padded[0, : len(piece)] = piece
            gaussians.append(jax.device_get(embed(padded, np.int32([len(piece)]))))
            lengths.append(len(piece))
        return _of_row(pooled(gaussians, np.float32(lengths) / np.float32(sum(lengths))))

    def of_blend(self, text: str) -> Gaussian:
        """Gaussian `[d]` of emotions by name, see `emotion_blend`.

        Raises:
            UserError: the text cannot be read, or the directory holds no centroids.
        """
        return self._table.gaussian(text)

    def checked(self, gaussian: Gaussian) -> Gaussian:
        """A Gaussian of a caller, held against the space.

        Raises:
            UserError: no Gaussian, not `[d]`, or not finite.
        """
        dim = self._animator.embedding_dim
        if not isinstance(gaussian, Gaussian):
            raise UserError(f"an emotion is text or a Gaussian, got {type(gaussian).__name__}")
        shapes = [np.shape(array) for array in gaussian]
        if shapes != [(dim,)] * 2 or not all(np.isfinite(array).all() for array in gaussian):
            raise UserError(f"an emotion Gaussian has finite mean and log_variance [{dim}], got {shapes}")
        return gaussian

    def track(self, source: str | os.PathLike | Sequence[TrackRow]) -> EmotionTrack:
        """A track from a file, or from rows.

        Raises:
            UserError: the file or the rows cannot be used, or the directory holds no centroids.
        """
        if isinstance(source, (str, os.PathLike)):
            return read_track(source, self._table)
        return track_of_rows([(second, self._moments(emotion)) for second, emotion in source])

    def _moments(self, emotion: str | Gaussian) -> Moments:
        """Moments of a row; a Gaussian needs no centroids."""
        if isinstance(emotion, str):
            return self._table.moments(parse_blend(emotion))
        return Moments.of(self.checked(emotion))

    @cached_property
    def _table(self) -> EmotionTable:
        if set(self._statistics) != set(EmotionCentroids._fields):
            raise UserError(
                f"{self._directory}: holds no centroids of the emotions; make them from training data with "
                f"python -m deeptalk_jax.tools.emotion_centroids --model={self._directory} --data_dir=DIR"
            )
        return EmotionTable(EmotionCentroids(**self._statistics))

    @cached_property
    def _motion_tower(self):
        """Compiled `(frames [1, t, 53], num_frames [1]) -> Gaussian [1, d]`, and the most frames it takes."""
        parts = {name: load_part(self._directory, name) for name in ("fer", "dee")}
        fer, dee = build_fer(parts["fer"].config), build_dee(parts["dee"].config)
        expected = jax.eval_shape(lambda key: init_fer(fer, key), jax.random.key(0))
        check_variables("fer", parts["fer"].variables, expected)
        unused = ("speech_encoder", "audio_tower")
        params = parts["dee"].variables["params"]
        params = {name: tree for name, tree in params.items() if name not in unused}
        variables = jax.device_put((parts["fer"].variables, {"params": params}))

        @jax.jit
        def embed(fer_variables, dee_variables, frames, num_frames):
            features = fer.apply(fer_variables, frames, method=FER.features)
            return dee.apply(dee_variables, features, num_frames, method=DEE.embed_motion)

        return lambda *inputs: embed(*variables, *inputs), dee.max_motion_frames


def _of_row(gaussian: Gaussian) -> Gaussian:
    """`[1, d]` to `[d]` numpy arrays."""
    return Gaussian(*(np.array(array[0]) for array in gaussian))
