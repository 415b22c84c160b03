"""The compiled path from waveforms to motion: emotion Gaussian, emotion vector, generator, windows joined."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.inference.audio import num_motion_frames
from deeptalk_jax.inference.windows import (
    Window,
    bucket_for,
    crossfade_windows,
    cut_windows,
    join_windows,
)
from deeptalk_jax.models.dee import DEE, unit_length
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE
from deeptalk_jax.types import MOTION_RATE_HZ, SAMPLES_PER_FRAME, Array, Gaussian

PyTree = Any

# Windows of one long clip that run together.
_ROWS_PER_CALL = 4


def normalise_clip(waveform: Float[np.ndarray, " s"], eps: float) -> Float[np.ndarray, " s"]:
    """Zero mean and unit variance over the whole clip, so that all its windows are scaled alike."""
    # Moments in float64: an hour has 6e7 samples, and float32 squares overflow past 1e19.
    mean, variance = waveform.mean(dtype=np.float64), waveform.var(dtype=np.float64)
    return (waveform - np.float32(mean)) / np.float32(np.sqrt(variance + eps))


def pool_by_precision(gaussians: Gaussian, weights: Float[Array, " b"]) -> Gaussian:
    """One Gaussian for windows of one clip: precision-weighted mean on the sphere, mean precision.

    Args:
        gaussians: `[b, d]` one row for each window.
        weights: `[b]` share of the clip that each window covers; sums to 1.
    """
    precision = weights[:, None] * jnp.exp(-gaussians.log_variance)
    total = jnp.sum(precision, axis=0, keepdims=True)
    mean = unit_length(jnp.sum(precision * gaussians.mean, axis=0, keepdims=True) / total)
    return Gaussian(mean, -jnp.log(total))


def draw_emotion(gaussian: Gaussian, alpha: float, key: KeyArray) -> Float[Array, "b d"]:
    """`normalise(mean + alpha * std * noise)`: alpha 0 is the mean, 1 a sample of the learned Gaussian."""
    noise = jax.random.normal(key, gaussian.mean.shape)
    return unit_length(gaussian.mean + alpha * jnp.exp(0.5 * gaussian.log_variance) * noise)


class Animator:
    """Runs DEE and the generator on clips of any length, in a few compiled shapes.

    Args:
        dee: module and variables.
        generator: module and variables.
    """

    def __init__(self, dee: tuple[DEE, PyTree], generator: tuple[Generator, PyTree]):
        (dee_model, self._dee_variables), (model, self._generator_variables) = dee, generator
        dee_encoder, encoder = dee_model.speech_encoder, model.predictor.speech_encoder
        self._dee_eps, self._generator_eps = dee_encoder.waveform_eps, encoder.waveform_eps
        # Waveforms are normalised here, over whole clips; the encoders see windows.
        self._dee = dee_model.clone(speech_encoder=dee_encoder.clone(waveform_eps=None))
        predictor = model.predictor.clone(speech_encoder=encoder.clone(waveform_eps=None))
        self._generator = model.clone(predictor=predictor)
        self._max_emotion_frames = dee_model.motion_tower.max_length
        self._embed = jax.jit(functools.partial(self._dee.apply, method=DEE.embed_audio))
        self._sample = jax.jit(
            functools.partial(self._generator.apply, method=Generator.sample), static_argnames="num_frames"
        )

    def emotion(self, waveform: Float[np.ndarray, " s"]) -> Gaussian:
        """Gaussian `[1, d]` of a clip; past 10 s, windows of 10 s are pooled by precision."""
        waveform = normalise_clip(waveform, self._dee_eps)
        longest = self._max_emotion_frames * SAMPLES_PER_FRAME
        starts = range(0, len(waveform), longest)
        # A last window of under a second says little and would weigh as one: it joins nothing.
        pieces = [waveform[start : start + longest] for start in starts]
        if len(pieces) > 1 and len(pieces[-1]) < MOTION_RATE_HZ * SAMPLES_PER_FRAME:
            pieces.pop()
        gaussians = [self._embed_piece(piece) for piece in pieces]
        lengths = np.array([len(piece) for piece in pieces], np.float32)
        stacked = Gaussian(*(jnp.concatenate(rows) for rows in zip(*gaussians, strict=True)))
        return pool_by_precision(stacked, jnp.asarray(lengths / lengths.sum()))

    def _embed_piece(self, piece: np.ndarray) -> Gaussian:
        bucket = min(bucket_for(num_motion_frames(len(piece))), self._max_emotion_frames)
        padded = np.pad(piece, (0, bucket * SAMPLES_PER_FRAME - len(piece)))
        return self._embed(self._dee_variables, padded[None], np.array([len(piece)], np.int32))

    def motion(
        self,
        waveform: Float[np.ndarray, " s"],
        emotion: Float[Array, "1 d"],
        identity: Float[Array, " i"],
        key: KeyArray,
        *,
        temperature_top: float,
        temperature_bottom: float,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Motion `[t, 53]`, top codes `[ceil(t/4)]` and bottom codes `[ceil(t/2)]` of a clip."""
        waveform = normalise_clip(waveform, self._generator_eps)
        num_frames = num_motion_frames(len(waveform))
        windows = cut_windows(num_frames)
        rows = 1 if len(windows) == 1 else _ROWS_PER_CALL
        temperatures = (np.float32(temperature_top), np.float32(temperature_bottom))
        parts = [
            part
            for start in range(0, len(windows), rows)
            for part in self._run(
                waveform, windows[start : start + rows], rows, emotion, identity, key, temperatures
            )
        ]
        motions, tops, bottoms = zip(*parts, strict=True)
        return (
            crossfade_windows(windows, list(motions)),
            join_windows(windows, list(tops), frames_per_row=FRAMES_PER_TOP_CODE),
            join_windows(windows, list(bottoms), frames_per_row=FRAMES_PER_BOTTOM_CODE),
        )

    def _run(
        self,
        waveform: np.ndarray,
        windows: list[Window],
        rows: int,
        emotion: Array,
        identity: Array,
        key: KeyArray,
        temperatures: tuple[np.float32, np.float32],
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """One compiled call for up to `rows` windows; unused rows repeat the last window."""
        bucket = bucket_for(windows[0].num_frames) if rows == 1 else bucket_for(10**9)
        filled = windows + [windows[-1]] * (rows - len(windows))
        audio = np.zeros((rows, bucket * SAMPLES_PER_FRAME), np.float32)
        num_samples = np.zeros(rows, np.int32)
        for row, window in enumerate(filled):
            piece = waveform[window.first_frame * SAMPLES_PER_FRAME :][
                : window.num_frames * SAMPLES_PER_FRAME
            ]
            audio[row, : len(piece)], num_samples[row] = piece, len(piece)
        frames = np.array([window.num_frames for window in filled], np.int32)
        generated = self._sample(
            self._generator_variables,
            audio,
            num_samples,
            jnp.broadcast_to(emotion, (rows, emotion.shape[-1])),
            jnp.broadcast_to(identity[None], (rows, identity.shape[0])),
            jnp.broadcast_to(key, (rows,)),
            num_codes=-(-frames // FRAMES_PER_TOP_CODE),
            num_frames=bucket,
            temperature_top=temperatures[0],
            temperature_bottom=temperatures[1],
            first_frames=np.array([window.first_frame for window in filled], np.int32),
        )
        arrays = (generated.motion, generated.indices_top, generated.indices_bottom)
        return list(zip(*(np.asarray(array)[: len(windows)] for array in arrays), strict=True))
