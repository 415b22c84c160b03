"""Sources of an emotion: speech, a motion, named emotions, or a track over time.

All become Gaussians in DEE's emotion space. DEEPTalk takes the emotion from the speech only; see
docs/emotion_control.md.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import jax
import numpy as np

from deeptalk_jax.assembly.build import build_dee, build_fer, init_fer
from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids
from deeptalk_jax.assembly.model_dir import check_variables, load_part
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import Basis
from deeptalk_jax.inference.animator import Animator
from deeptalk_jax.inference.audio import Sound, read_sound
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.emotion_blend import EmotionTable, Moments, blend_text, parse_blend
from deeptalk_jax.inference.emotion_gaussian import pool_by_precision
from deeptalk_jax.inference.emotion_track import EmotionTrack, TrackRow, read_track, track_of_rows
from deeptalk_jax.inference.motion import Motion, read_motion
from deeptalk_jax.inference.pipeline import embed_clips
from deeptalk_jax.inference.windows import bucket_for, cut_pieces
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.types import MOTION_DIM, MOTION_RATE_HZ, Gaussian

# A `.npz` file of `Motion.save` or of a tracker, a `Motion`, or frames `[t, 53]` at 25 per second.
MotionSource = str | os.PathLike | np.ndarray | Motion
# Named emotions: text, or weights by name such as `{"happy": 0.8, "surprised": 0.2}`; or a result of
# `EmotionSpace.read`.
Emotion = str | Mapping[str, float] | Gaussian | EmotionTrack
# A CSV file, or rows of seconds and emotions.
TrackSource = str | os.PathLike | Sequence[TrackRow]


def only_one(**sources: object) -> None:
    """Raises `UserError` if more than one source of an emotion is given, that is, not None."""
    given = [name for name, source in sources.items() if source is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude one another: give one of {', '.join(sources)}")


class EmotionSpace:
    """The emotion space of a model. FER and DEE's motion tower are loaded when a motion is first embedded.

    Args:
        directory: the model directory.
        animator: runs DEE's audio tower.
        statistics: fields of `EmotionCentroids` stored with the part dee, or empty.
        basis: basis of the motions that the model was trained on; None if it is not known.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        animator: Animator,
        statistics: Mapping[str, np.ndarray],
        basis: Basis | None = None,
    ):
        self._directory, self._animator = Path(directory), animator
        self._statistics, self._basis = statistics, basis

    def read(
        self,
        blend: str | Mapping[str, float] | None = None,
        *,
        audio: Sound | None = None,
        motion: MotionSource | None = None,
        track: TrackSource | None = None,
        rate_hz: int,
        batch_size: int,
    ) -> Gaussian | EmotionTrack:
        """Reads an emotion from exactly one of four sources, see `DeepTalk.emotion`.

        Raises:
            UserError: no source or several are given, or the source cannot be used.
        """
        only_one(blend=blend, audio=audio, motion=motion, track=track)
        if track is not None:
            return self.from_track(track)
        if audio is not None:
            return self.from_clip(Clip(read_sound(audio, rate_hz), self._animator.options), batch_size)
        if motion is not None:
            return self.from_motion(motion)
        if blend is not None:
            return self.from_blend(blend)
        raise UserError("expected an emotion as blend, audio, motion or track; none is given")

    def chosen(
        self,
        emotion: Emotion | None,
        audio: Sound | None,
        motion: MotionSource | None,
        track: TrackSource | None,
        *,
        rate_hz: int,
        batch_size: int,
    ) -> Gaussian | EmotionTrack | None:
        """Returns the emotion that the arguments of `DeepTalk.animate` give; None if all are None."""
        only_one(emotion=emotion, emotion_audio=audio, emotion_motion=motion, emotion_track=track)
        if isinstance(emotion, EmotionTrack):
            return emotion
        if emotion is not None and not isinstance(emotion, (str, Mapping)):
            return self.checked(emotion)
        if all(source is None for source in (emotion, audio, motion, track)):
            return None
        sources = {"audio": audio, "motion": motion, "track": track}
        return self.read(emotion, **sources, rate_hz=rate_hz, batch_size=batch_size)

    def from_clip(self, clip: Clip, batch_size: int) -> Gaussian:
        """Embeds speech of any length to a Gaussian `[d]`."""
        (emotion,) = embed_clips(self._animator, [clip], batch_size)
        if isinstance(emotion, Exception):
            raise emotion
        return Gaussian(*(np.array(array) for array in emotion))

    def from_motion(self, motion: MotionSource) -> Gaussian:
        """Embeds a motion of any length to a Gaussian `[d]`, pooled over windows of 10 s as for speech.

        Raises:
            UserError: the motion cannot be used or has another basis, or the directory does not hold FER.
        """
        frames = read_motion(motion, basis=self._basis, of=f"the model {self._directory}")
        embed, longest = self._motion_tower
        starts = cut_pieces(len(frames), longest, shortest=MOTION_RATE_HZ)
        if self._animator.options.emotion_windows == "first_10s":
            starts = starts[:1]
        gaussians, lengths = [], []
        for start in starts:
            piece = frames[start : start + longest]
            padded = np.zeros((1, bucket_for(len(piece), longest), MOTION_DIM), np.float32)
            padded[0, : len(piece)] = piece
            gaussian = jax.device_get(embed(padded, np.int32([len(piece)])))
            gaussians.append(Gaussian(*(np.array(array[0]) for array in gaussian)))
            lengths.append(len(piece))
        return pool_by_precision(gaussians, lengths)

    def from_blend(self, blend: str | Mapping[str, float]) -> Gaussian:
        """Returns the Gaussian `[d]` of named emotions, as text or as a mapping to weights, see `emotion_blend`.

        Raises:
            UserError: the blend cannot be read, or the directory does not hold emotion centroids.
        """
        return self.table.gaussian(blend_text(blend) if isinstance(blend, Mapping) else blend)

    def checked(self, gaussian: Gaussian) -> Gaussian:
        """Returns a caller's Gaussian unchanged, after checking that it fits the space.

        Raises:
            UserError: the value is not a Gaussian, has another shape than `[d]`, or is not finite.
        """
        dim = self._animator.embedding_dim
        if not isinstance(gaussian, Gaussian):
            raise UserError(
                f"expected an emotion as text, as a mapping of names to weights or as a Gaussian, "
                f"got {type(gaussian).__name__}"
            )
        shapes = [np.shape(array) for array in gaussian]
        if shapes != [(dim,)] * 2 or not all(np.isfinite(array).all() for array in gaussian):
            raise UserError(
                f"an emotion Gaussian needs finite mean and log_variance [{dim}], got shapes {shapes}"
            )
        return gaussian

    def from_track(self, source: TrackSource) -> EmotionTrack:
        """Reads a track from a file or from rows.

        Raises:
            UserError: the file or the rows cannot be used, or they name emotions and the directory does not hold
                emotion centroids.
        """
        if isinstance(source, (str, os.PathLike)):
            return read_track(source, self.table)
        return track_of_rows([(second, self._moments(emotion)) for second, emotion in source])

    def _moments(self, emotion: str | Mapping[str, float] | Gaussian) -> Moments:
        """Returns the moments of a track row; a Gaussian needs no centroids."""
        if isinstance(emotion, Mapping):
            emotion = blend_text(emotion)
        if isinstance(emotion, str):
            return self.table.moments(parse_blend(emotion))
        return Moments.of(self.checked(emotion))

    @cached_property
    def table(self) -> EmotionTable:
        """Centroids of the named emotions.

        Raises:
            UserError: the directory does not hold emotion centroids.
        """
        if set(self._statistics) != set(EmotionCentroids._fields):
            raise UserError(
                f"{self._directory}: holds no emotion centroids; make them from training data with "
                f"python -m deeptalk_jax.tools.emotion_centroids --model={self._directory} --data_dir=DIR"
            )
        return EmotionTable(EmotionCentroids(**self._statistics))

    @cached_property
    def _motion_tower(self) -> tuple[Callable[[np.ndarray, np.ndarray], Gaussian], int]:
        """Compiled `(frames [1, t, 53], num_frames [1]) -> Gaussian [1, d]`, and the largest number of frames."""
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
