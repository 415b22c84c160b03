"""The compiled paths from pieces of clips to emotion Gaussians and to motion, in a few static shapes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.options import InferenceOptions
from deeptalk_jax.inference.settings import Sampling
from deeptalk_jax.inference.windows import Window, bucket_for, cut_pieces, cut_windows
from deeptalk_jax.models.dee import DEE, unit_length
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import AUDIO_RATE_HZ, SAMPLES_PER_FRAME, Array, Gaussian

PyTree = Any


class Piece(NamedTuple):
    """A stretch of a clip that one row of a call holds.

    Attributes:
        clip: the clip.
        first_sample: where the stretch begins.
        num_samples: its length, within the clip and the padding that counts.
    """

    clip: Clip
    first_sample: int
    num_samples: int


class MotionRow(NamedTuple):
    """A window of a clip and what its motion depends on.

    Attributes:
        clip: the clip.
        window: frames to make.
        emotions: unit vector of every sample, `[n, d]`, or `[n, t, d]` one for every frame of the bucket; of one kind
            in all rows of a call.
        keys: `[n]` random key of every sample.
    """

    clip: Clip
    window: Window
    emotions: np.ndarray
    keys: KeyArray


class WindowMotion(NamedTuple):
    """Motions of one window; frames of padding follow.

    Attributes:
        motion: `[n, t, 53]`; without n where it is that of a single sample.
        indices_top: `[n, t/4]`.
        indices_bottom: `[n, t/2]`.
    """

    motion: np.ndarray
    indices_top: np.ndarray
    indices_bottom: np.ndarray


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


def draw_emotion(
    gaussian: Gaussian, alpha: float, key: KeyArray, *, mode: str = "standard_deviation"
) -> Float[Array, "b d"]:
    """Unit vectors from emotion Gaussians; alpha 0 is the mean. All share one noise: a track stays smooth.

    Args:
        gaussian: `[b, d]`.
        alpha: spread, 0 or above.
        key: random key.
        mode: `standard_deviation`: `normalise(mean + alpha * std * noise)`, so 1 draws from the learned Gaussian and
            more spreads more. `log_variance`, as the published demo: the log-variance is multiplied, so above 1
            spreads less wherever the variance is below 1.
    """
    noise = jax.random.normal(key, (1, gaussian.mean.shape[-1]))
    if mode == "log_variance":
        spread = jnp.where(alpha > 0, jnp.exp(0.5 * alpha * gaussian.log_variance), 0.0)
    else:
        spread = alpha * jnp.exp(0.5 * gaussian.log_variance)
    return unit_length(gaussian.mean + spread * noise)


class Animator:
    """Runs DEE and the generator on rows of static length.

    A call holds several rows. An accelerator computes them side by side; a CPU one after the other inside the same
    program, which is faster (one row's features fit its caches), takes the memory of one row and no time for rows
    that only fill the call. Either way a row gives the same numbers whatever else the call holds.

    Args:
        dee: module and variables.
        generator: module and variables.
        options: rules of inference.

    Attributes:
        options: as given.
        embedding_dim: size of the emotion space.
    """

    def __init__(
        self, dee: tuple[DEE, PyTree], generator: tuple[Generator, PyTree], options: InferenceOptions
    ):
        (dee_model, dee_variables), (model, generator_variables) = dee, generator
        dee_encoder, encoder = dee_model.speech_encoder, model.predictor.speech_encoder
        self.options = options
        self._dee_eps, self._generator_eps = dee_encoder.waveform_eps, encoder.waveform_eps
        # Waveforms are normalised here, over whole clips; the encoders see pieces.
        self._dee = dee_model.clone(speech_encoder=dee_encoder.clone(waveform_eps=None))
        predictor = model.predictor.clone(speech_encoder=encoder.clone(waveform_eps=None))
        self._generator = model.clone(predictor=predictor)
        self.embedding_dim = dee_model.embedding_dim
        self._max_emotion_frames = dee_model.max_motion_frames
        unused = ("motion_tower", "motion_map")
        params = {name: tree for name, tree in dee_variables["params"].items() if name not in unused}
        self._dee_variables = jax.device_put({"params": params})
        self._generator_variables = jax.device_put(generator_variables)
        self._embed = jax.jit(self._embed_rows)
        self._sample = jax.jit(self._sample_rows)

    def emotion_pieces(self, clip: Clip) -> list[tuple[int, Piece]]:
        """What the emotion of a clip is taken from, each piece with its bucket."""
        if self.options.emotion_windows == "first_10s":
            longest = self.options.max_window_frames
            num_samples = min(clip.num_samples, longest * SAMPLES_PER_FRAME)
            return [(bucket_for(-(-num_samples // SAMPLES_PER_FRAME), longest), Piece(clip, 0, num_samples))]
        longest = self._max_emotion_frames
        size = longest * SAMPLES_PER_FRAME
        pieces = [
            Piece(clip, start, min(size, clip.num_samples - start))
            for start in cut_pieces(clip.num_samples, size, shortest=AUDIO_RATE_HZ)
        ]
        return [(bucket_for(-(-piece.num_samples // SAMPLES_PER_FRAME), longest), piece) for piece in pieces]

    def motion_windows(self, clip: Clip) -> list[tuple[int, Window]]:
        """The windows of a clip, each with its bucket."""
        longest = self.options.max_window_frames
        windows = cut_windows(clip.num_model_frames, longest)
        return [(bucket_for(window.num_frames, longest), window) for window in windows]

    def embed(self, bucket: int, num_rows: int, pieces: Sequence[Piece]) -> list[Gaussian]:
        """Gaussians `[1, d]` of pieces; one compiled call of `num_rows`, of which the first are wanted."""
        filled = _filled(pieces, num_rows)
        audio, num_samples = _audio(filled, bucket, self._dee_eps)
        gaussians = jax.device_get(self._embed(self._dee_variables, len(pieces), audio, num_samples))
        return [Gaussian(*(array[row : row + 1] for array in gaussians)) for row in range(len(pieces))]

    def sample(
        self, bucket: int, num_rows: int, rows: Sequence[MotionRow], identity: np.ndarray, sampling: Sampling
    ) -> list[WindowMotion]:
        """All samples of windows with an identity `[i]`; one compiled call of `num_rows`, the first of them wanted."""
        filled = _filled(rows, num_rows)
        pieces = [
            Piece(
                row.clip,
                row.window.first_frame * SAMPLES_PER_FRAME,
                min(
                    row.window.num_frames * SAMPLES_PER_FRAME,
                    row.clip.num_samples - row.window.first_frame * SAMPLES_PER_FRAME,
                ),
            )
            for row in filled
        ]
        audio, num_samples = _audio(pieces, bucket, self._generator_eps)
        frames = np.array([row.window.num_frames for row in filled], np.int32)
        arrays = jax.device_get(
            self._sample(
                self._generator_variables,
                identity,
                np.float32(sampling.temperature_top),
                np.float32(sampling.temperature_bottom),
                np.float32(sampling.top_p),
                len(rows),
                audio,
                num_samples,
                np.stack([row.emotions for row in filled]),
                jnp.stack([row.keys for row in filled]),
                -(-frames // FRAMES_PER_TOP_CODE),
                np.array([row.window.first_frame for row in filled], np.int32),
            )
        )
        return [WindowMotion(*(array[row] for array in arrays)) for row in range(len(rows))]

    def _embed_rows(self, variables: PyTree, num_wanted: Array, audio: Array, num_samples: Array) -> Gaussian:
        def embed(audio, num_samples):
            return self._dee.apply(variables, audio, num_samples, method=DEE.embed_audio)

        return _over_rows(embed, num_wanted, audio, num_samples)

    def _sample_rows(
        self,
        variables: PyTree,
        identity: Array,
        temperature_top: Array,
        temperature_bottom: Array,
        top_p: Array,
        num_wanted: Array,
        *rows: Array,
    ) -> WindowMotion:
        def samples(audio, num_samples, emotions, keys, num_codes, first_frames):
            def sample(emotion, key):
                generated = self._generator.apply(
                    variables,
                    audio,
                    num_samples,
                    emotion,
                    jnp.broadcast_to(identity[None], (audio.shape[0], identity.shape[0])),
                    key,
                    num_codes=num_codes,
                    num_frames=audio.shape[1] // SAMPLES_PER_FRAME,
                    temperature_top=temperature_top,
                    temperature_bottom=temperature_bottom,
                    top_p=top_p,
                    first_frames=first_frames,
                    method=Generator.sample,
                )
                return WindowMotion(generated.motion, generated.indices_top, generated.indices_bottom)

            # The sound does not depend on the sample: it is encoded once for all.
            return jax.vmap(sample, in_axes=1, out_axes=1)(emotions, keys)

        return _over_rows(samples, num_wanted, *rows)


def _over_rows(function: Callable[..., PyTree], num_wanted: Array, *rows: Array) -> PyTree:
    """A batched function on all rows at once, or on a CPU on the first `num_wanted` one by one; see `Animator`."""
    num_rows = rows[0].shape[0]
    if num_rows == 1 or jax.default_backend() != "cpu":
        return function(*rows)

    def one(row):
        return function(*(jax.lax.dynamic_slice_in_dim(array, row, 1) for array in rows))

    def put(row, results):
        return jax.tree.map(
            lambda array, result: jax.lax.dynamic_update_slice_in_dim(array, result, row, 0),
            results,
            one(row),
        )

    results = jax.tree.map(
        lambda result: jnp.zeros((num_rows, *result.shape[1:]), result.dtype), jax.eval_shape(one, 0)
    )
    return jax.lax.fori_loop(0, num_wanted, put, results)


def _filled(rows: Sequence, num_rows: int) -> list:
    """Rows, the first one repeated behind them."""
    return [*rows, *[rows[0]] * (num_rows - len(rows))]


def _audio(pieces: Sequence[Piece], bucket: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Waveforms `[b, bucket * 640]` and their valid samples `[b]`."""
    size = bucket * SAMPLES_PER_FRAME
    audio = [piece.clip.piece(piece.first_sample, piece.num_samples, size, eps=eps) for piece in pieces]
    return np.stack(audio), np.array([piece.num_samples for piece in pieces], np.int32)
