"""`DeepTalk`: a trained model directory, ready to animate."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.inference.animator import Animator, WindowMotion
from deeptalk_jax.inference.audio import read_audio, to_model_rate
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.emotion_source import EmotionSpace, MotionSource
from deeptalk_jax.inference.emotion_track import EmotionTrack, TrackRow
from deeptalk_jax.inference.identity import Identity, read_identity
from deeptalk_jax.inference.loading import load_generator
from deeptalk_jax.inference.motion import Motion, split_motion
from deeptalk_jax.inference.pipeline import Pipeline, PipelineSettings, Progress
from deeptalk_jax.inference.settings import DEFAULT_BATCH_SIZE, Sampling
from deeptalk_jax.types import AUDIO_RATE_HZ, Gaussian

Audio = str | os.PathLike | np.ndarray

# By name as `DeepTalk.emotion` takes it, or what that or `DeepTalk.read_emotion` gave.
Emotion = str | Gaussian | EmotionTrack


def only_one(**sources: object) -> None:
    """Raises `UserError` where more than one source of an emotion is given."""
    given = [name for name, source in sources.items() if source is not None]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude one another: give one of {', '.join(sources)}")


class DeepTalk:
    """Speech to facial motion.

    Attributes:
        head: the head that motions are for.
        num_identities: identities that the model was trained with.
    """

    def __init__(self, animator: Animator, space: EmotionSpace, head: HeadModel, config):
        self._animator = animator
        self._space = space
        self._config = config
        self.head = head

    @classmethod
    def load(cls, directory: str | os.PathLike, *, head: str | None = None) -> "DeepTalk":
        """Loads a model directory.

        Args:
            directory: as written by training (`WORKDIR/model`).
            head: head to use instead of the model's own, as `load_head` takes it.

        Raises:
            UserError: no model directory, a damaged one, or one without dee, motion_prior or deeptalk.
        """
        parts = load_generator(directory)
        animator = Animator((parts.dee, parts.dee_variables), (parts.model, parts.variables), parts.options)
        space = EmotionSpace(directory, animator, parts.dee_statistics)
        return cls(animator, space, load_head(head or parts.head), parts.config)

    @property
    def num_identities(self) -> int:
        """Identities that the model was trained with."""
        return self._config.data.num_identities

    def emotion(
        self,
        blend: str | None = None,
        *,
        audio: Audio | None = None,
        motion: MotionSource | None = None,
        rate_hz: int = AUDIO_RATE_HZ,
    ) -> Gaussian:
        """Where an emotion lies in DEE's space; give one of the first three.

        Args:
            blend: emotions by name, such as `happy@2` or `happy:0.8,surprised:0.2`, see `emotion_blend`.
            audio: a sound file, or `[s]` mono samples in [-1, 1].
            motion: a `.npz` of `Motion.save`, a `Motion`, or frames `[t, 53]` at 25 per second.
            rate_hz: rate of the samples, where samples are given.

        Returns:
            Gaussian of numpy arrays: `mean [d]`, of unit length, and `log_variance [d]`. Speech and motion go through
            towers of their own into one space.

        Raises:
            UserError: no source or several, or the source cannot be used.
        """
        only_one(blend=blend, audio=audio, motion=motion)
        given = self.read_emotion(emotion=blend, emotion_audio=audio, emotion_motion=motion, rate_hz=rate_hz)
        if given is None:
            raise UserError("an emotion is taken from blend, audio or motion; none is given")
        return given

    def read_emotion(
        self,
        *,
        emotion: Emotion | None = None,
        emotion_audio: Audio | None = None,
        emotion_motion: MotionSource | None = None,
        emotion_track: str | os.PathLike | Sequence[TrackRow] | None = None,
        rate_hz: int = AUDIO_RATE_HZ,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> Gaussian | EmotionTrack | None:
        """The emotion that `animate` takes from its arguments of these names; None where all are None.

        Raises:
            UserError: several are given, or one cannot be used.
        """
        only_one(
            emotion=emotion,
            emotion_audio=emotion_audio,
            emotion_motion=emotion_motion,
            emotion_track=emotion_track,
        )
        if emotion_track is not None:
            return self._space.track(emotion_track)
        if emotion_audio is not None:
            return self._space.of_clip(self._clip(emotion_audio, rate_hz), batch_size)
        if emotion_motion is not None:
            return self._space.of_motion(emotion_motion)
        if isinstance(emotion, str):
            return self._space.of_blend(emotion)
        return (
            emotion if emotion is None or isinstance(emotion, EmotionTrack) else self._space.checked(emotion)
        )

    def animate(
        self,
        audio: Audio,
        *,
        rate_hz: int = AUDIO_RATE_HZ,
        identity: Identity = None,
        temperature_top: float = 0.0,
        temperature_bottom: float = 0.0,
        top_p: float = 1.0,
        alpha: float = 0.0,
        seed: int = 0,
        emotion: Emotion | None = None,
        emotion_audio: Audio | None = None,
        emotion_motion: MotionSource | None = None,
        emotion_track: str | os.PathLike | Sequence[TrackRow] | None = None,
    ) -> Motion:
        """Facial motion of speech of any length.

        Args:
            audio: a sound file, or `[s]` mono samples in [-1, 1].
            rate_hz: rate of the samples, where samples are given.
            identity: whose habits of the face: number of a training identity, a blend such as `3:0.5,7:0.5`, a file
                of fit_identity or a vector, see `inference.identity`; None is the mean of all.
            temperature_top: of the slow codes; 0 takes the most likely.
            temperature_bottom: of the fast codes.
            top_p: codes of either level are drawn from the most likely ones that reach this probability together;
                1 = all, 0 = the most likely one.
            alpha: spread of the emotion around what the speech says; 0 is its mean. What 1 means is decided by the
                model's `alpha_mode`: by default the learned Gaussian.
            seed: of everything random; 0 to 2^32 - 1.
            emotion: take this emotion instead of that of the speech: by name, or what the method `emotion` gave. At
                most one of the four.
            emotion_audio: take the emotion from this sound.
            emotion_motion: take the emotion from this motion, see the method `emotion`.
            emotion_track: take an emotion that changes over time: a CSV file, see `inference.emotion_track`, or
                rows `(seconds, blend by name or Gaussian [d])`.

        Returns:
            Motion of exactly `ceil(seconds * 25)` frames.

        Raises:
            UserError: the sound cannot be used, or a number is out of its range.
        """
        (motion,) = self.animate_many(
            [audio],
            rate_hz=rate_hz,
            identity=identity,
            temperature_top=temperature_top,
            temperature_bottom=temperature_bottom,
            top_p=top_p,
            alpha=alpha,
            seed=seed,
            emotion=emotion,
            emotion_audio=emotion_audio,
            emotion_motion=emotion_motion,
            emotion_track=emotion_track,
        )
        return motion

    def animate_many(self, audio: Iterable[Audio], **settings) -> list[Motion]:
        """Facial motion of many sounds, those of similar length together; each as `animate` gives it alone.

        Args:
            audio: sound files, or `[s]` mono samples.
            **settings: of `sample_each`, but for `num_samples`.

        Returns:
            Motions in the order of the sounds.

        Raises:
            UserError: a sound cannot be used, or a number is out of its range.
        """
        return [motion for (motion,) in self.sample_many(audio, 1, **settings)]

    def sample_many(self, audio: Iterable[Audio], num_samples: int, **settings) -> list[list[Motion]]:
        """Several motions of each of many sounds, all of one sound from one compiled call.

        The i-th motion is that of `animate` with `seed + i`.

        Args:
            audio: sound files, or `[s]` mono samples.
            num_samples: motions of every sound.
            **settings: of `sample_each`.

        Returns:
            Motions of every sound, in the order of the sounds.

        Raises:
            UserError: a sound cannot be used, or a number is out of its range.
        """
        found = {}
        for index, motions in self.sample_each(audio, num_samples, **settings):
            if isinstance(motions, Exception):
                raise motions
            found[index] = motions
        return [found[index] for index in range(len(found))]

    def animate_each(self, audio: Iterable[Audio], **settings) -> Iterator[tuple[int, Motion | Exception]]:
        """As `sample_each` with one motion of each sound."""
        for index, motions in self.sample_each(audio, 1, **settings):
            yield index, motions if isinstance(motions, Exception) else motions[0]

    def sample_each(
        self,
        audio: Iterable[Audio],
        num_samples: int,
        *,
        rate_hz: int = AUDIO_RATE_HZ,
        identity: Identity = None,
        emotion: Emotion | None = None,
        emotion_audio: Audio | None = None,
        emotion_motion: MotionSource | None = None,
        emotion_track: str | os.PathLike | Sequence[TrackRow] | None = None,
        progress: Progress | None = None,
        **sampling: float,
    ) -> Iterator[tuple[int, list[Motion] | Exception]]:
        """Gives the motions of each of many sounds as soon as they are done.

        Clips and windows of clips are collected by length; a batch runs when it is full, and what is left when no
        sound is left. A clip's motion depends on its sound and the settings, not on its neighbours: every clip draws
        from the same seeds.

        Args:
            audio: sound files, or `[s]` mono samples; taken one at a time.
            num_samples: motions of every sound; the i-th is that of `animate` with `seed + i`.
            rate_hz: see `animate`, as all up to `emotion_track`.
            identity: for all sounds.
            emotion: for all sounds.
            emotion_audio: for all sounds.
            emotion_motion: for all sounds.
            emotion_track: for all sounds, each from its beginning.
            progress: called after every batch with the seconds of motion made.
            **sampling: for all sounds, fields of `settings.Sampling`: `temperature_top`, `temperature_bottom`, `top_p`,
                `alpha`, `seed` and `batch_size`.

        Yields:
            Number of the sound in `audio`, and its motions or what kept them from being made.

        Raises:
            UserError: a number is out of its range, or identity or emotion cannot be used.
        """
        drawn = Sampling(num_samples=num_samples, **sampling).checked()
        style = read_identity(self._config, identity)
        source = self.read_emotion(
            emotion=emotion,
            emotion_audio=emotion_audio,
            emotion_motion=emotion_motion,
            emotion_track=emotion_track,
            rate_hz=rate_hz,
            batch_size=drawn.batch_size,
        )
        clips = self._clips(audio, rate_hz)
        settings = PipelineSettings(style, drawn, source)
        for (index, clip), result in Pipeline(self._animator, settings, progress).run(clips):
            if isinstance(result, Exception):
                yield index, result
            else:
                yield index, [self._motion(clip, sample) for sample in result]

    def _motion(self, clip: Clip, result: WindowMotion) -> Motion:
        expression, jaw_pose = split_motion(result.motion)
        return Motion(
            expression=expression,
            jaw_pose=jaw_pose,
            indices_top=result.indices_top,
            indices_bottom=result.indices_bottom,
            waveform=clip.waveform,
            head=self.head,
        )

    def check_settings(self, *, identity: Identity = None, **sampling: float) -> None:
        """Holds settings of `sample_each` against their ranges, before any sound is read.

        Raises:
            UserError: names the first setting that is out of its range.
        """
        Sampling(**sampling).checked()
        read_identity(self._config, identity)

    def _clip(self, audio: Audio, rate_hz: int) -> Clip:
        if isinstance(audio, (str, os.PathLike)):
            waveform = read_audio(Path(audio))
        else:
            waveform = to_model_rate(np.asarray(audio), rate_hz)
        return Clip(waveform, self._animator.options)

    def _clips(
        self, audio: Iterable[Audio], rate_hz: int
    ) -> Iterator[tuple[tuple[int, Clip | Exception], Clip | Exception]]:
        """Every sound with its number, or what kept it from being read: for the caller to judge, the others go on."""
        for index, sound in enumerate(audio):
            try:
                clip = self._clip(sound, rate_hz)
            except Exception as error:
                clip = error
            yield (index, clip), clip
