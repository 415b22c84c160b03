"""The two compiled programs of inference: audio to emotion Gaussians, and audio with emotions to motion.

Both run on batches of a few static lengths (`windows.bucket_for`), so that few programs are compiled.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.options import InferenceOptions, Sampling
from deeptalk_jax.inference.windows import MotionWindow, bucket_for, cut_pieces, cut_windows
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import AUDIO_RATE_HZ, SAMPLES_PER_FRAME, Array, Gaussian

PyTree = Any


class AudioPiece(NamedTuple):
    """A stretch of a clip that fills one row of a batch.

    Attributes:
        clip: the clip.
        first_sample: start of the stretch in the clip.
        num_samples: length of the stretch; it may reach into the padding that counts as sound.
    """

    clip: Clip
    first_sample: int
    num_samples: int


class MotionRow(NamedTuple):
    """A window of a clip, and the emotions of its motions.

    Attributes:
        clip: the clip.
        window: frames to generate.
        emotions: one unit vector per sample, `[n, d]`, or one per sample and frame of the bucket, `[n, t, d]`; the
            rows of a batch all have the same form.
    """

    clip: Clip
    window: MotionWindow
    emotions: np.ndarray


class WindowMotion(NamedTuple):
    """Motions of one window; rows of padding may follow.

    Attributes:
        motion: `[n, t, 53]`; without axis n for a single sample, as are the others.
        indices_top: `[n, t/4]`.
        indices_bottom: `[n, t/2]`.
    """

    motion: np.ndarray
    indices_top: np.ndarray
    indices_bottom: np.ndarray


def random_keys(seeds: Array) -> tuple[Array, Array]:
    """Derives the random keys of samples from their seeds.

    Args:
        seeds: `[n]` uint32.

    Returns:
        Keys `[n]` that draw emotions, and keys `[n]` that draw codes.
    """
    keys = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed)))(seeds)
    return keys[:, 0], keys[:, 1]


class Animator:
    """Runs DEE and the generator on batches of static length.

    An accelerator computes the rows of a batch in parallel. A CPU computes them one after the other inside the same
    program, which is faster because the features of one row fit its caches, needs the memory of one row, and skips
    the rows that only fill the batch. Either way a row gives the same numbers whatever else the batch holds.

    Args:
        dee: module and variables.
        generator: module and variables.
        options: rules of inference.

    Attributes:
        options: rules of inference.
        embedding_dim: size of the emotion space.
        match_scale: learned scale of DEE's match logit.
    """

    def __init__(
        self, dee: tuple[DEE, PyTree], generator: tuple[Generator, PyTree], options: InferenceOptions
    ):
        (dee_model, dee_variables), (model, generator_variables) = dee, generator
        dee_encoder, encoder = dee_model.speech_encoder, model.predictor.speech_encoder
        self.options = options
        self._dee_eps, self._generator_eps = dee_encoder.waveform_eps, encoder.waveform_eps
        # `Clip` normalises waveforms over whole clips, because the encoders process pieces.
        self._dee = dee_model.clone(speech_encoder=dee_encoder.clone(waveform_eps=None))
        predictor = model.predictor.clone(speech_encoder=encoder.clone(waveform_eps=None))
        self._generator = model.clone(predictor=predictor)
        self.embedding_dim = dee_model.embedding_dim
        self.match_scale = float(dee_variables["params"]["scale"])
        self._max_emotion_frames = dee_model.max_motion_frames
        unused = ("motion_tower", "motion_map")
        params = {name: tree for name, tree in dee_variables["params"].items() if name not in unused}
        self._dee_variables = jax.device_put({"params": params})
        self._generator_variables = jax.device_put(generator_variables)
        self._embed = jax.jit(self._embed_rows)
        self._sample = jax.jit(self._sample_rows)

    def emotion_pieces(self, clip: Clip) -> list[tuple[int, AudioPiece]]:
        """Cuts a clip into the pieces that its emotion is pooled from; returns each with its bucket."""
        if self.options.emotion_windows == "first_10s":
            longest = self.options.max_window_frames
            num_samples = min(clip.num_samples, longest * SAMPLES_PER_FRAME)
            pieces = [AudioPiece(clip, 0, num_samples)]
        else:
            longest = self._max_emotion_frames
            size = longest * SAMPLES_PER_FRAME
            pieces = [
                AudioPiece(clip, start, min(size, clip.num_samples - start))
                for start in cut_pieces(clip.num_samples, size, shortest=AUDIO_RATE_HZ)
            ]
        return [(bucket_for(-(-piece.num_samples // SAMPLES_PER_FRAME), longest), piece) for piece in pieces]

    def motion_windows(self, clip: Clip) -> list[tuple[int, MotionWindow]]:
        """Cuts a clip into the windows that its motion is generated in; returns each with its bucket."""
        longest = self.options.max_window_frames
        windows = cut_windows(clip.num_model_frames, longest)
        return [(bucket_for(window.num_frames, longest), window) for window in windows]

    def embed(self, bucket: int, num_rows: int, pieces: Sequence[AudioPiece]) -> list[Gaussian]:
        """Embeds pieces of speech with DEE's audio tower, in one compiled call.

        Args:
            bucket: static length of the batch, in motion frames.
            num_rows: static number of rows of the batch.
            pieces: at most `num_rows`; repetitions of the first one fill the batch.

        Returns:
            Gaussian `[d]` of numpy arrays for every piece.
        """
        audio, num_samples = _audio_batch(_filled(pieces, num_rows), bucket, self._dee_eps)
        gaussians = jax.device_get(self._embed(self._dee_variables, len(pieces), audio, num_samples))
        return [Gaussian(*(array[row] for array in gaussians)) for row in range(len(pieces))]

    def sample(
        self, bucket: int, num_rows: int, rows: Sequence[MotionRow], identity: np.ndarray, sampling: Sampling
    ) -> list[WindowMotion]:
        """Generates all samples of windows, in one compiled call.

        Args:
            bucket: static length of the batch, in motion frames.
            num_rows: static number of rows of the batch.
            rows: at most `num_rows`; repetitions of the first one fill the batch.
            identity: `[i]` identity vector, the same for all rows.
            sampling: temperatures, nucleus and seeds, the same for all rows.

        Returns:
            Motions of every window; frames of padding follow those of the window.
        """
        filled = _filled(rows, num_rows)
        audio, num_samples = _audio_batch([_piece_of(row) for row in filled], bucket, self._generator_eps)
        num_frames = np.array([row.window.num_frames for row in filled], np.int32)
        arrays = jax.device_get(
            self._sample(
                self._generator_variables,
                identity,
                np.array(sampling.seeds, np.uint32),
                np.float32(sampling.temperature_top),
                np.float32(sampling.temperature_bottom),
                np.float32(sampling.top_p),
                len(rows),
                audio,
                num_samples,
                np.stack([row.emotions for row in filled]),
                -(-num_frames // FRAMES_PER_TOP_CODE),
                np.array([row.window.first_frame for row in filled], np.int32),
            )
        )
        return [WindowMotion(*(array[row] for array in arrays)) for row in range(len(rows))]

    def _embed_rows(self, variables: PyTree, num_wanted: Array, audio: Array, num_samples: Array) -> Gaussian:
        """Traced body of `embed`: `[b, s]` audio to Gaussians `[b, d]`."""

        def embed(audio, num_samples):
            return self._dee.apply(variables, audio, num_samples, method=DEE.embed_audio)

        return _map_rows(embed, num_wanted, audio, num_samples)

    def _sample_rows(
        self,
        variables: PyTree,
        identity: Array,
        seeds: Array,
        temperature_top: Array,
        temperature_bottom: Array,
        top_p: Array,
        num_wanted: Array,
        *rows: Array,
    ) -> WindowMotion:
        """Traced body of `sample`: rows `[b, ...]` to motions `[b, n, t, 53]` and their codes."""
        _, code_keys = random_keys(seeds)  # the same for all rows: a clip moves alike alone and in any batch

        def samples(audio, num_samples, emotions, num_codes, first_frames):
            def sample(emotion, key):
                generated = self._generator.apply(
                    variables,
                    audio,
                    num_samples,
                    emotion,
                    jnp.broadcast_to(identity[None], (audio.shape[0], identity.shape[0])),
                    jnp.broadcast_to(key[None], audio.shape[:1]),
                    num_codes=num_codes,
                    num_frames=audio.shape[1] // SAMPLES_PER_FRAME,
                    temperature_top=temperature_top,
                    temperature_bottom=temperature_bottom,
                    top_p=top_p,
                    first_frames=first_frames,
                    method=Generator.sample,
                )
                return WindowMotion(generated.motion, generated.indices_top, generated.indices_bottom)

            if code_keys.shape[0] == 1:  # without vmap, which doubles the time to trace
                return jax.tree.map(lambda array: array[:, None], sample(emotions[:, 0], code_keys[0]))
            # The audio has no sample axis, so vmap encodes it once for all samples.
            return jax.vmap(sample, in_axes=(1, 0), out_axes=1)(emotions, code_keys)

        return _map_rows(samples, num_wanted, *rows)


def _map_rows(function: Callable[..., PyTree], num_wanted: Array, *rows: Array) -> PyTree:
    """Applies a batched function to all rows at once, or on a CPU to the first `num_wanted` one by one."""
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
    """Appends repetitions of the first row, up to `num_rows`."""
    return [*rows, *[rows[0]] * (num_rows - len(rows))]


def _piece_of(row: MotionRow) -> AudioPiece:
    """Returns the audio of a motion window."""
    first_sample = row.window.first_frame * SAMPLES_PER_FRAME
    wanted = row.window.num_frames * SAMPLES_PER_FRAME
    return AudioPiece(row.clip, first_sample, min(wanted, row.clip.num_samples - first_sample))


def _audio_batch(pieces: Sequence[AudioPiece], bucket: int, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns normalised waveforms `[b, bucket * 640]` and their numbers of valid samples `[b]`."""
    size = bucket * SAMPLES_PER_FRAME
    audio = [piece.clip.piece(piece.first_sample, piece.num_samples, size, eps=eps) for piece in pieces]
    return np.stack(audio), np.array([piece.num_samples for piece in pieces], np.int32)
