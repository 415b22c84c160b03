"""`DeepTalk`: a trained model directory, ready to animate."""

import os
from pathlib import Path

import jax
import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.inference.animator import Animator, draw_emotion
from deeptalk_jax.inference.audio import num_motion_frames, read_audio, to_model_rate
from deeptalk_jax.inference.motion import Motion, split_motion
from deeptalk_jax.model_dir import check_variables, load_part, read_index
from deeptalk_jax.stages.builders import (
    build_dee,
    build_generator,
    identity_vector,
    init_dee,
    init_motion_prior,
    init_predictor,
)
from deeptalk_jax.stages.deeptalk import with_prior
from deeptalk_jax.types import AUDIO_RATE_HZ

# FER, which only reads motion, may be missing: DEEPTalk.pth holds everything else.
_NEEDED_PARTS = ("dee", "motion_prior", "deeptalk")


class DeepTalk:
    """Speech to facial motion.

    Attributes:
        head: the head that motions are for.
        num_identities: identities that the model was trained with.
    """

    def __init__(self, animator: Animator, head: HeadModel, config):
        self._animator = animator
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
        index = read_index(directory)
        dee, prior, predictor = (load_part(directory, name) for name in _NEEDED_PARTS)
        try:
            dee_model = build_dee(dee.config)
            model = build_generator(predictor.config, prior.config)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{directory}: a config in its index describes no model ({error})") from error
        embedding_dim = dee.config.model.embedding_dim
        motion_map = dee.variables.get("params", {}).get("motion_map", {}).get("kernel", np.zeros((1, 1)))
        for name, part, initialise in (
            ("dee", dee, lambda key: init_dee(dee_model, motion_map.shape[0], key)),
            ("motion_prior", prior, lambda key: init_motion_prior(model.prior, key)),
            ("deeptalk", predictor, lambda key: init_predictor(model, embedding_dim, key)),
        ):
            check_variables(name, part.variables, jax.eval_shape(initialise, jax.random.key(0)))
        return cls(
            Animator((dee_model, dee.variables), (model, with_prior(predictor.variables, prior.variables))),
            load_head(head or index["head"]),
            predictor.config,
        )

    @property
    def num_identities(self) -> int:
        """Identities that the model was trained with."""
        return self._config.data.num_identities

    def animate(
        self,
        audio: str | os.PathLike | np.ndarray,
        *,
        rate_hz: int = AUDIO_RATE_HZ,
        identity: int | None = None,
        temperature_top: float = 0.0,
        temperature_bottom: float = 0.0,
        alpha: float = 0.0,
        seed: int = 0,
        emotion_audio: str | os.PathLike | np.ndarray | None = None,
    ) -> Motion:
        """Facial motion of speech of any length.

        Args:
            audio: a sound file, or `[s]` mono samples in [-1, 1].
            rate_hz: rate of the samples, where samples are given.
            identity: training identity whose style to take; None is the mean of all.
            temperature_top: of the slow codes; 0 takes the most likely.
            temperature_bottom: of the fast codes.
            alpha: spread of the emotion around what the speech says; 0 is its mean, 1 the learned Gaussian.
            seed: of everything random; 0 to 2^32 - 1.
            emotion_audio: take the emotion from this sound instead.

        Returns:
            Motion of exactly `ceil(seconds * 25)` frames.

        Raises:
            UserError: the sound cannot be used, or a number is out of its range.
        """
        self.check_settings(
            identity=identity,
            temperature_top=temperature_top,
            temperature_bottom=temperature_bottom,
            alpha=alpha,
            seed=seed,
        )
        waveform = self._waveform(audio, rate_hz)
        speaker = waveform if emotion_audio is None else self._waveform(emotion_audio, rate_hz)
        emotion_key, code_key = jax.random.split(jax.random.key(seed))
        emotion = draw_emotion(self._animator.emotion(speaker), alpha, emotion_key)
        motion, indices_top, indices_bottom = self._animator.motion(
            waveform,
            emotion,
            identity_vector(self._config, identity),
            code_key,
            temperature_top=temperature_top,
            temperature_bottom=temperature_bottom,
        )
        num_frames = num_motion_frames(len(waveform))
        expression, jaw_pose = split_motion(motion[:num_frames])
        return Motion(
            expression=expression,
            jaw_pose=jaw_pose,
            indices_top=indices_top,
            indices_bottom=indices_bottom,
            waveform=waveform,
            head=self.head,
        )

    def check_settings(
        self,
        *,
        identity: int | None = None,
        temperature_top: float = 0.0,
        temperature_bottom: float = 0.0,
        alpha: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Holds settings of `animate` against their ranges, before any sound is read.

        Raises:
            UserError: names the first setting that is out of its range.
        """
        for name, value in (
            ("temperature_top", temperature_top),
            ("temperature_bottom", temperature_bottom),
            ("alpha", alpha),
        ):
            if not (np.isfinite(value) and value >= 0):
                raise UserError(f"{name}={value} must be a finite number, 0 or above")
        if not 0 <= seed < 2**32:  # JAX drops the bits above without a word
            raise UserError(f"seed={seed} must lie between 0 and 2^32 - 1")
        try:
            identity_vector(self._config, identity)
        except ValueError as error:
            raise UserError(str(error)) from error

    @staticmethod
    def _waveform(audio: str | os.PathLike | np.ndarray, rate_hz: int) -> np.ndarray:
        if isinstance(audio, (str, os.PathLike)):
            return read_audio(Path(audio))
        return to_model_rate(np.asarray(audio), rate_hz)
