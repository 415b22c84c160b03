"""`DeepTalk`: a trained model, loaded from its directory, that animates speech."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deeptalk_jax.cli import use_compilation_cache
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import EMBEDDED, PROCEDURAL, Basis, check_basis
from deeptalk_jax.head.lazy import LazyHead
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.inference.animator import Animator, WindowMotion
from deeptalk_jax.inference.audio import Sound, read_sound
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.emotion_blend import blend_text
from deeptalk_jax.inference.emotion_classes import EMOTION_FORMATS, EmotionClasses, classify_clip
from deeptalk_jax.inference.emotion_source import Emotion, EmotionSpace, MotionSource, TrackSource
from deeptalk_jax.inference.emotion_track import EmotionTrack
from deeptalk_jax.inference.identity import Identity, read_identity
from deeptalk_jax.inference.idle.blinks import add_blinks, resolve_blinks
from deeptalk_jax.inference.motion import Motion, split_motion
from deeptalk_jax.inference.options import DEFAULT_BATCH_SIZE, Sampling
from deeptalk_jax.inference.pipeline import Progress, Request, animate_clips
from deeptalk_jax.inference.provenance import Provenance, model_digest, package_version, source_text
from deeptalk_jax.inference.trained_generator import TrainedGenerator, load_generator
from deeptalk_jax.types import AUDIO_RATE_HZ, EMOTIONS, MOTION_RATE_HZ, Gaussian

_GIVE_HEAD = "give one of its basis, {}, with --head=FILE"


class DeepTalk:
    """A trained model that turns speech into facial motion.

    `animate` returns motions; `animate_each` yields the motions of many sounds as soon as they are done.
    """

    def __init__(
        self,
        animator: Animator,
        space: EmotionSpace,
        load_head: LazyHead | None,
        parts: TrainedGenerator,
        origin: str,
    ):
        self._animator, self._space, self._load_head = animator, space, load_head
        self._config, self._directory = parts.config, origin
        self._trained_head, self._basis = parts.head or "", parts.basis
        self._digest, self._version = model_digest(origin), package_version()

    def __repr__(self) -> str:
        return (
            f"DeepTalk({self._directory}, {self.num_identities} identities, "
            f"head {self._load_head.reference if self._load_head else 'not given'})"
        )

    @classmethod
    def load(cls, directory: str | os.PathLike, *, head: str | None = None) -> "DeepTalk":
        """Loads a model directory.

        Compiled programs are kept on disk, see `cli.use_compilation_cache`.

        Args:
            directory: model directory written by training (`WORKDIR/model`).
            head: head to use instead of the model's own, as `load_head` takes it.

        Raises:
            UserError: the directory is not a model directory, is damaged, or lacks one of the parts dee, motion_prior
                and deeptalk; or the head cannot be loaded, or has another basis than the model.
        """
        use_compilation_cache()
        parts = load_generator(directory)
        animator = Animator((parts.dee, parts.dee_variables), (parts.model, parts.variables), parts.options)
        space = EmotionSpace(directory, animator, parts.dee_statistics, parts.basis)
        reference, load = head or parts.head, None
        if reference:
            load = LazyHead(reference)
            # An error in a file must come now; the embedded head is built when it is first used.
            found = EMBEDDED if reference == PROCEDURAL else load().basis
            source, advice = f"--head={reference}", f"give the head that {directory} was trained for"
            check_basis(found, parts.basis, source=source, other=f"the model {directory}", advice=advice)
        return cls(animator, space, load, parts, os.fspath(directory))

    @property
    def head(self) -> HeadModel:
        """The head that motions are generated for.

        Raises:
            UserError: the model has no head, because its weights were imported without one.
        """
        if self._load_head is None:
            raise UserError(f"{self._directory}: names no head; {_GIVE_HEAD.format(self._basis)}")
        return self._load_head()

    @property
    def basis(self) -> Basis | None:
        """What the coefficients of motions stand for, see `head.basis`; None if the model does not record it."""
        return self._basis

    def check_formats(self, formats: Sequence[str]) -> None:
        """Raises `UserError` if the model lacks what one of the formats of infer.py needs: a head, or centroids."""
        if "mp4" in formats and self._load_head is None:
            raise UserError(
                f"--formats=mp4: {self._directory} names no head; {_GIVE_HEAD.format(self._basis)}"
            )
        if named := [name for name in formats if name in EMOTION_FORMATS]:
            try:
                self._space.table  # noqa: B018 (the property raises the error)
            except UserError as error:
                raise UserError(f"--formats={','.join(named)}: {error}") from error

    @property
    def num_identities(self) -> int:
        """Number of identities that the model was trained with."""
        return self._config.data.num_identities

    @property
    def emotions(self) -> tuple[str, ...]:
        """Names of the emotions, in the order of `types.EMOTIONS`."""
        return EMOTIONS

    @property
    def sample_rate_hz(self) -> int:
        """Sample rate that sounds are converted to, and that of `Motion.waveform`."""
        return AUDIO_RATE_HZ

    @property
    def fps(self) -> int:
        """Frames per second of all motions."""
        return MOTION_RATE_HZ

    def emotion(
        self,
        blend: str | Mapping[str, float] | None = None,
        *,
        audio: Sound | None = None,
        motion: MotionSource | None = None,
        track: TrackSource | None = None,
        rate_hz: int = AUDIO_RATE_HZ,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> Gaussian | EmotionTrack:
        """Reads an emotion from exactly one of four sources, for the argument `emotion` of `animate`.

        Args:
            blend: named emotions, such as `happy@2`, `happy:0.8,surprised:0.2` or the mapping
                `{"happy": 0.8, "surprised": 0.2}`, see `inference.emotion_blend`.
            audio: speech: a sound file, or `[s]` mono samples in [-1, 1].
            motion: a `.npz` file of `Motion.save`, a `Motion`, or frames `[t, 53]` at 25 per second.
            track: an emotion that changes over time: a CSV file, see `inference.emotion_track`, or rows
                `(seconds, named emotions or Gaussian [d])`.
            rate_hz: sample rate of `audio`, if it is an array.
            batch_size: largest number of 10 s pieces of `audio` in one compiled call.

        Returns:
            Gaussian of numpy arrays `mean [d]`, of unit length, and `log_variance [d]` in DEE's space, which speech
            and motion share; for a track an `EmotionTrack`.

        Raises:
            UserError: no source or several are given, or the source cannot be used.
        """
        sources = {"audio": audio, "motion": motion, "track": track}
        return self._space.read(blend, **sources, rate_hz=rate_hz, batch_size=batch_size)

    def classify_emotion(
        self, audio: Sound, *, rate_hz: int = AUDIO_RATE_HZ, batch_size: int = DEFAULT_BATCH_SIZE
    ) -> EmotionClasses:
        """Names the emotion of speech, with probabilities for the whole sound and for every second.

        Args:
            audio: a sound, see `animate`.
            rate_hz: sample rate of `audio`, if it is an array.
            batch_size: largest number of 10 s pieces of `audio` in one compiled call.

        Raises:
            UserError: the sound cannot be used, or the model directory does not hold emotion centroids.
        """
        return classify_clip(self._animator, self._space.table, self._clip(audio, rate_hz), batch_size)

    def animate(
        self,
        audio: Sound | list[Sound],
        *,
        num_samples: int | None = None,
        rate_hz: int = AUDIO_RATE_HZ,
        identity: Identity = None,
        temperature_top: float = 0.0,
        temperature_bottom: float = 0.0,
        top_p: float = 1.0,
        alpha: float = 0.0,
        seed: int = 0,
        emotion: Emotion | None = None,
        emotion_audio: Sound | None = None,
        emotion_motion: MotionSource | None = None,
        emotion_track: TrackSource | None = None,
        blinks: bool | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
    ) -> Motion | list[Motion] | list[list[Motion]]:
        """Generates facial motion for one sound, or for a list of sounds, of any length.

        A motion depends on its sound and on the arguments, never on the other sounds of a list.

        Args:
            audio: a sound: a file, samples, or another form that `inference.audio.read_sound` takes; or a list of
                sounds. An array or a tuple is always one sound.
            num_samples: number of motions per sound; motion i is drawn with `seed + i`. None gives a single motion
                instead of a list.
            rate_hz: sample rate of `audio` and `emotion_audio`, where they are arrays.
            identity: speaker identity: number of a training identity, a blend such as `3:0.5,7:0.5`, a file of
                fit_identity, or a vector, see `inference.identity`; None takes the mean of all training identities.
            temperature_top: sampling temperature of the top (slow) codes; 0 takes the most likely code.
            temperature_bottom: sampling temperature of the bottom (fast) codes; 0 takes the most likely code.
            top_p: nucleus probability: codes of either level are drawn from the most likely ones whose probabilities
                first reach `top_p` together; 1 keeps all codes, 0 only the most likely one.
            alpha: spread of the emotion around its mean; 0 takes the mean, and 1 draws from the learned Gaussian
                unless the model's `alpha_mode` differs.
            seed: random seed, 0 to 2^32 - 1, shared by all sounds.
            emotion: emotion that replaces that of the speech: named emotions, or a result of the method `emotion`. At
                most one of the four emotion arguments may be given; it applies to all sounds.
            emotion_audio: takes the emotion from this sound.
            emotion_motion: takes the emotion from this motion, see the method `emotion`.
            emotion_track: emotion that changes over time, see the method `emotion`; it starts with every sound.
            blinks: adds blinks by rule, at times that `seed` draws; None adds them for the embedded head only.
            batch_size: largest number of 10 s motions in one compiled call.
            progress: called after every batch with the seconds of motion that it made.

        Returns:
            Motion of exactly `ceil(seconds * 25)` frames; a list of motions if `num_samples` is given; and for a list
            of sounds a list of these in the same order.

        Raises:
            UserError: a sound, an identity or an emotion cannot be used, or a number is out of range.
        """
        sounds = audio if isinstance(audio, list) else [audio]
        results = {}
        for index, result in self.animate_each(
            sounds,
            num_samples=num_samples,
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
            blinks=blinks,
            batch_size=batch_size,
            progress=progress,
        ):
            if isinstance(result, Exception):
                raise result
            results[index] = result
        motions = [results[index] for index in sorted(results)]
        return motions if isinstance(audio, list) else motions[0]

    def animate_each(
        self,
        audio: Iterable[Sound],
        *,
        num_samples: int | None = None,
        rate_hz: int = AUDIO_RATE_HZ,
        identity: Identity = None,
        temperature_top: float = 0.0,
        temperature_bottom: float = 0.0,
        top_p: float = 1.0,
        alpha: float = 0.0,
        seed: int = 0,
        emotion: Emotion | None = None,
        emotion_audio: Sound | None = None,
        emotion_motion: MotionSource | None = None,
        emotion_track: TrackSource | None = None,
        blinks: bool | None = None,
        batch_size: int = DEFAULT_BATCH_SIZE,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, Motion | list[Motion] | Exception]]:
        """Generates facial motion for many sounds and yields each as soon as it is done.

        Sounds of similar length run together. A sound that cannot be animated does not affect the others.

        Args:
            audio: list of sounds, or an iterator, which is consumed in groups of bounded size.
            num_samples: see `animate`, as for all other arguments.
            rate_hz: see `animate`.
            identity: see `animate`.
            temperature_top: see `animate`.
            temperature_bottom: see `animate`.
            top_p: see `animate`.
            alpha: see `animate`.
            seed: see `animate`.
            emotion: see `animate`.
            emotion_audio: see `animate`.
            emotion_motion: see `animate`.
            emotion_track: see `animate`.
            blinks: see `animate`.
            batch_size: see `animate`.
            progress: see `animate`.

        Yields:
            Index of the sound; and its motion (a list of motions if `num_samples` is given), or the exception that
            prevented it.

        Raises:
            UserError: `audio` is a single sound, an identity or an emotion cannot be used, or a number is out of
                range. These are raised by the call, before the first sound is read.
        """
        if isinstance(audio, (str, bytes, os.PathLike, np.ndarray, tuple, Mapping)) or hasattr(audio, "read"):
            raise UserError(
                f"animate_each expects a list of sounds, got a single {type(audio).__name__}; "
                "use animate for one sound"
            )
        sampling = Sampling(
            temperature_top=temperature_top,
            temperature_bottom=temperature_bottom,
            top_p=top_p,
            alpha=alpha,
            seed=seed,
            num_samples=1 if num_samples is None else num_samples,
            batch_size=batch_size,
        )
        vector = read_identity(self._config, identity)
        chosen = self._space.chosen(
            emotion, emotion_audio, emotion_motion, emotion_track, rate_hz=rate_hz, batch_size=batch_size
        )
        request = Request(vector, sampling, chosen)
        origin = Provenance(
            head=self._trained_head,
            model_index_sha256=self._digest,
            emotion=source_text(
                "speech",
                blend_text(emotion) if isinstance(emotion, Mapping) else emotion,
                audio=emotion_audio,
                motion=emotion_motion,
                track=emotion_track,
            ),
            identity=source_text("mean", identity),
            **sampling.drawn_with(),
            version=self._version,
            basis=self._basis,
            blinks=resolve_blinks(
                blinks, self._trained_head == PROCEDURAL == getattr(self._load_head, "reference", "")
            ),
        )
        return self._results(audio, rate_hz, request, progress, origin, as_list=num_samples is not None)

    def _results(
        self,
        audio: Iterable[Sound],
        rate_hz: int,
        request: Request,
        progress: Progress | None,
        origin: Provenance,
        as_list: bool,
    ) -> Iterator[tuple[int, Motion | list[Motion] | Exception]]:
        """Animates sounds with arguments that have been checked; see `animate_each`."""
        # Waveforms, and files where there are any, of the sounds whose motions are not done.
        sounds: dict[int, tuple[np.ndarray, Path | None]] = {}

        def clips() -> Iterator[Clip | Exception]:
            for index, sound in enumerate(audio):
                try:
                    clip = self._clip(sound, rate_hz)
                except Exception as error:
                    clip = error
                else:
                    is_file = isinstance(sound, (str, os.PathLike))
                    sounds[index] = clip.waveform, Path(sound).absolute() if is_file else None
                yield clip

        for index, result in animate_clips(self._animator, clips(), request, progress):
            sound = sounds.pop(index, None)
            if isinstance(result, Exception):
                yield index, result
            else:
                origins = (replace(origin, seed=seed) for seed in request.sampling.seeds)
                motions = [self._motion(*sound, *pair) for pair in zip(result, origins, strict=True)]
                yield index, motions if as_list else motions[0]

    def _clip(self, sound: Sound, rate_hz: int) -> Clip:
        return Clip(read_sound(sound, rate_hz), self._animator.options)

    def _motion(
        self, waveform: np.ndarray, sound_file: Path | None, result: WindowMotion, provenance: Provenance
    ) -> Motion:
        motion = add_blinks(result.motion, provenance.seed) if provenance.blinks else result.motion
        expression, jaw_pose = split_motion(motion)
        return Motion(
            expression=expression,
            jaw_pose=jaw_pose,
            indices_top=result.indices_top,
            indices_bottom=result.indices_bottom,
            waveform=waveform,
            load_head=self._load_head,
            provenance=provenance,
            sound_file=sound_file,
        )
