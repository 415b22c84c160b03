"""Fits the identity vector of a person to speech with its motion; all other variables are frozen.

The vector starts at the mean identity and follows the gradient of the vertex error of the generated motion, where every
code is replaced by the mean of the codebook under softmax(logits), which is smooth and noiseless. On held-out speech
of two new speakers this gave smaller errors than the cross-entropy against the prior's own codes. Every fifth window is
set aside for validation: of the identities along the way, the one whose most likely motion has the least error there is
chosen, which may be the mean identity itself (docs/sampling.md).
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from deeptalk_jax.assembly.build import identity_vector
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.gram import distance_factor, squared_distance
from deeptalk_jax.head.load import load_head
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.audio import num_motion_frames
from deeptalk_jax.inference.identity import Identity
from deeptalk_jax.inference.trained_generator import TrainedGenerator
from deeptalk_jax.metrics.motion import MotionErrors
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.types import MOTION_RATE_HZ, SAMPLES_PER_FRAME, Array, SpeechFeatures

PyTree = Any

NUM_STEPS = 200
LEARNING_RATE = 0.02
# Weight of the lip error relative to the error of all vertices, as in training of the mini variant.
_LIP_WEIGHT = 0.5
_MM2_PER_M2 = 1e6
_MOST_WINDOWS = 64  # 1.28 s each; more than a minute adds little and costs memory
_HELD_OUT_SHARE = 0.2
_FEWEST_WINDOWS = 5
_SET_ASIDE_EVERY = 5
_MOST_FRAMES_APART = 2  # lengths of sound and motion differ by rounding and by the tracker


class Recording(NamedTuple):
    """Speech with its motion.

    Attributes:
        waveform: `[s]` float32 at 16 kHz.
        motion: `[t, 53]` expression and jaw pose at 25 Hz.
    """

    waveform: np.ndarray
    motion: np.ndarray


class FittedIdentity(NamedTuple):
    """The fitted identity of a person.

    Attributes:
        vector: `[i]` identity vector.
        losses: `[n]` mean squared coordinate error before every step, with the weighted error of the lips, mm^2.
        checks: `[n]` the same error of the most likely motion, in the windows set aside; it is least for `vector`.
    """

    vector: np.ndarray
    losses: np.ndarray
    checks: np.ndarray


class _Windows(NamedTuple):
    """Windows with everything that does not depend on the identity.

    Attributes:
        features: `[b, t, d]` speech features.
        emotion: `[b, d]` unit vectors.
        motion: `[b, t, 53]` true motion.
    """

    features: Array
    emotion: Array
    motion: Array


class _PrecomputedFeatures(nn.Module):
    """Replaces the speech encoder and passes on its features, which are computed once and not in every step."""

    def __call__(
        self, features: Array, num_samples: Array, *, num_frames: int, train: bool
    ) -> SpeechFeatures:
        return SpeechFeatures(features, jnp.ones(features.shape[:2], bool))


def split_recording(recording: Recording, window_frames: int) -> tuple[Recording, Recording]:
    """Splits a recording into the part to fit and the last fifth, held out; both are whole windows long.

    Raises:
        UserError: sound and motion differ in length, or there are fewer than five windows.
    """
    frames, sound_frames = len(recording.motion), num_motion_frames(len(recording.waveform))
    if abs(frames - sound_frames) > _MOST_FRAMES_APART:
        raise UserError(
            f"{frames / MOTION_RATE_HZ:.2f} s of motion ({frames} frames) do not match "
            f"{sound_frames / MOTION_RATE_HZ:.2f} s of sound; give the sound and the motion of the same recording"
        )
    num_windows = min(frames, len(recording.waveform) // SAMPLES_PER_FRAME) // window_frames
    if num_windows < _FEWEST_WINDOWS:
        raise UserError(
            f"{frames} frames are too few to fit an identity; expected {_FEWEST_WINDOWS * window_frames} or more"
        )
    held_out = round(_HELD_OUT_SHARE * num_windows)
    cuts = np.array([0, num_windows - held_out, num_windows]) * window_frames
    parts = (
        Recording(
            recording.waveform[start * SAMPLES_PER_FRAME : end * SAMPLES_PER_FRAME],
            recording.motion[start:end],
        )
        for start, end in pairwise(cuts)
    )
    return next(parts), next(parts)


def fit_identity(
    parts: TrainedGenerator, recordings: Sequence[Recording], num_steps: int = NUM_STEPS
) -> FittedIdentity:
    """Fits the identity of a person; entries that belong to no training identity stay 0.

    Args:
        parts: the frozen model.
        recordings: recordings of the person; frames after the last whole window are ignored.
        num_steps: steps of gradient descent.

    Raises:
        UserError: no recording is as long as a window, or the model names no head.
    """
    windows = _windows(parts, recordings)
    aside = np.arange(len(windows.motion)) % _SET_ASIDE_EVERY == _SET_ASIDE_EVERY - 1
    # With fewer than five windows, all are used for both.
    learnt, checked = (
        jax.tree.map(lambda x, rows=rows: x[rows], windows)
        for rows in (~aside, aside if aside.any() else ~aside)
    )
    predictor = parts.model.predictor.clone(speech_encoder=_PrecomputedFeatures())
    model = parts.model.clone(predictor=predictor)
    mean = jnp.asarray(identity_vector(parts.config, None))
    optimiser = optax.adam(LEARNING_RATE)

    head = load_head(parts.head)
    factors = distance_factor(head), distance_factor(head, head.masks["lips"])

    @jax.jit
    def run(variables, learnt, checked, factors):
        def error(windows, identity, choose):
            motion = model.apply(variables, windows, identity, choose, method=_motion)
            whole, lips = (jnp.mean(squared_distance(factor, motion, windows.motion)) for factor in factors)
            return _MM2_PER_M2 * (whole + _LIP_WEIGHT * lips)

        def step(carry, _):
            identity, state = carry
            value, gradient = jax.value_and_grad(lambda x: error(learnt, x, jax.nn.softmax))(identity)
            updates, state = optimiser.update(jnp.where(mean > 0, gradient, 0.0), state)
            reached = optax.apply_updates(identity, updates), state
            return reached, (identity, value, error(checked, identity, _most_likely))

        _, (identities, losses, checks) = jax.lax.scan(step, (mean, optimiser.init(mean)), length=num_steps)
        return FittedIdentity(identities[jnp.argmin(checks)], losses, checks)

    return jax.device_get(run(parts.variables, learnt, checked, factors))


def _most_likely(logits: Float[Array, "b n k"]) -> Float[Array, "b n k"]:
    return jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])


def _motion(
    module: Generator, windows: _Windows, identity: Array, choose: Callable[[Array], Array]
) -> Float[Array, "b t 53"]:
    """Decodes the codes that `choose` selects: it maps logits `[b, n, k]` to weights of the codebook."""
    count, num_frames = windows.motion.shape[:2]
    face = module.predictor.face_features(
        windows.features,
        jnp.full(count, num_frames * SAMPLES_PER_FRAME),
        windows.emotion,
        jnp.broadcast_to(identity[None], (count, identity.shape[0])),
        num_frames=num_frames,
    )
    codes_top = module.prior.mix_top(choose(module.predictor.logits_top(face)))
    logits_bottom = module.predictor.logits_bottom(face, module.prior.decode_top(codes_top))
    return module.prior.decode(codes_top, module.prior.mix_bottom(choose(logits_bottom)))


def _windows(parts: TrainedGenerator, recordings: Sequence[Recording]) -> _Windows:
    """Cuts recordings into windows as in training; takes at most `_MOST_WINDOWS`, evenly over the recordings."""
    num_frames = parts.config.data.window_frames
    audio, motion = [], []
    for recording in recordings:
        usable = min(len(recording.motion), len(recording.waveform) // SAMPLES_PER_FRAME)
        usable -= usable % num_frames
        motion.append(einops.rearrange(recording.motion[:usable], "(b t) d -> b t d", t=num_frames))
        samples = recording.waveform[: usable * SAMPLES_PER_FRAME]
        audio.append(einops.rearrange(samples, "(b s) -> b s", s=num_frames * SAMPLES_PER_FRAME))
    audio, motion = np.concatenate(audio), np.concatenate(motion)
    if not len(motion):
        raise UserError(f"no recording has the {num_frames} frames of a window; give a longer one")
    chosen = np.linspace(0, len(motion) - 1, min(len(motion), _MOST_WINDOWS)).round().astype(int)

    @jax.jit
    def encode_audio(variables, dee_variables, audio):
        lengths = jnp.full(audio.shape[0], audio.shape[1])

        def encode(module):
            return module.predictor.speech_encoder(audio, lengths, num_frames=num_frames, train=False).values

        emotion = parts.dee.apply(dee_variables, audio, lengths, method=DEE.embed_audio).mean
        return parts.model.apply(variables, method=encode), emotion

    return _Windows(
        *encode_audio(parts.variables, parts.dee_variables, audio[chosen]), jnp.asarray(motion[chosen])
    )


def held_out_errors(
    model: DeepTalk, held_out: Sequence[Recording], identity: Identity
) -> dict[str, dict[str, float]]:
    """Measures lip and vertex errors, mm, of the most likely motion, with the mean identity and with `identity`."""
    report = {}
    for name, style in (("mean_identity", None), ("fitted_identity", identity)):
        errors = MotionErrors(model.head)
        motions = model.animate([recording.waveform for recording in held_out], identity=style, blinks=False)
        for recording, motion in zip(held_out, motions, strict=True):
            length = min(len(recording.motion), len(motion))
            errors.add(recording.motion[:length], generated=motion.frames()[:length])
        report[name] = {
            "lip_error_mm": errors.lip_error_mm("generated"),
            "vertex_error_mm": errors.vertex_error_mm("generated"),
        }
    return report
