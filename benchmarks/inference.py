"""Benchmark: how long does inference take from 10 s of speech to motion, and how much memory does it need?

    python -m benchmarks.inference

The base model runs with random weights. If PyTorch is installed, it is compared with the two speech encoders in
PyTorch, which are 96 % of the work of the published demo (`benchmarks/torch_encoders.py`). Times are medians of warm
runs; JAX and PyTorch alternate in one process. `--quick` runs the mini model on 2 s of speech.

The last line is a JSON object with

* `batch_1`, `batch_8` (with `--quick` `batch_2`): numbers for each batch size:
    * `jax_s`, `torch_s`: seconds of the complete inference in JAX, and of the speech encoders in PyTorch.
    * `ratio`: `jax_s / torch_s`, below 1 if JAX is faster; null without PyTorch, like `torch_s`.
    * `real_time_factor`: seconds of computation per second of speech.
    * `parts`: seconds of wav2vec2, emotion2vec, the DEE heads and the rest.
* `compile_s`: seconds to compile both programs at batch size 1, without (`cold`) and with (`cached`) the compilation
  cache.
* `peak_bytes`: peak memory of the process.
* `variant`, `seconds`: model variant and length of the speech.
"""

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.timing import median_s, peak_bytes
from configs import dee as dee_config
from configs import deeptalk as deeptalk_config
from configs import motion_prior as motion_prior_config
from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.build import with_prior
from deeptalk_jax.cli import run_tool
from deeptalk_jax.inference.animator import Animator, MotionRow
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.options import InferenceOptions, Sampling
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.types import AUDIO_RATE_HZ, SAMPLES_PER_FRAME

_QUICK = flags.DEFINE_bool(
    "quick", False, "Run the mini model on 2 s of speech, with batch sizes 1 and 2 instead of 1 and 8."
)
_RUNS = flags.DEFINE_integer("runs", 5, "Number of timed runs, of which the median is reported.")

PyTree = Any


class _Models(NamedTuple):
    """Modules with random variables.

    Attributes:
        dee: Dynamic emotion embedding.
        dee_variables: Variables of `dee`.
        generator: Motion generator.
        variables: Variables of `generator`.
    """

    dee: DEE
    dee_variables: PyTree
    generator: Generator
    variables: PyTree


def _random(init: Callable[[jax.Array], PyTree], seed: int) -> PyTree:
    """Returns random variables that keep features near unit scale; compiling `init` instead would take a minute."""
    generator = np.random.default_rng(seed)

    def leaf(path, shape):
        name = path[-1].key
        if name in ("scale", "variance", "gain"):
            return np.ones(shape.shape, np.float32)
        kernel = name in ("kernel", "direction")
        spread = np.float32(0.7 / np.sqrt(np.prod(shape.shape[:-1])) if kernel else 0.02)
        return spread * generator.standard_normal(shape.shape, dtype=np.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, jax.random.key(0)))


def _models(variant: str) -> _Models:
    configs = [
        module.get_config(f"variant={variant}")
        for module in (dee_config, deeptalk_config, motion_prior_config)
    ]
    dee, generator = build.build_dee(configs[0]), build.build_generator(configs[1], configs[2])
    feature_dim = 128  # width of FER's features; the benchmark does not run the motion tower that reads them
    predictor = _random(lambda key: build.init_predictor(generator, configs[0].model.embedding_dim, key), 1)
    prior = _random(lambda key: build.init_motion_prior(generator.prior, key), 2)
    dee_variables = _random(lambda key: build.init_dee(dee, feature_dim, key), 0)
    return _Models(dee, dee_variables, generator, with_prior(predictor, prior))


class _Case:
    """The timed functions for one batch size."""

    def __init__(self, models: _Models, animator: Animator, seconds: float, batch: int):
        self.batch, self.seconds = batch, seconds
        noise = np.random.default_rng(3).normal(0.0, 0.1, (batch, round(seconds * AUDIO_RATE_HZ)))
        self.audio = noise.astype(np.float32)
        self._animator = animator
        self._models = models
        predictor = models.generator.predictor
        style = np.full(predictor.num_identities, 1.0 / predictor.num_identities, np.float32)
        self._style = style

    def animate(self) -> None:
        """Runs the complete inference of a batch, including normalisation of the audio."""
        clips = [Clip(row, self._animator.options) for row in self.audio]
        (bucket, _), *_ = self._animator.emotion_pieces(clips[0])
        pieces = [self._animator.emotion_pieces(clip)[0][1] for clip in clips]
        gaussians = self._animator.embed(bucket, self.batch, pieces)
        (bucket, window), *_ = self._animator.motion_windows(clips[0])
        rows = [
            MotionRow(clip, window, gaussian.mean[None])
            for clip, gaussian in zip(clips, gaussians, strict=True)
        ]
        self._animator.sample(bucket, self.batch, rows, self._style, Sampling())

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Returns programs of the three large parts; on a CPU each runs its rows one by one, as `Animator` does."""
        models, num_frames = self._models, self.audio.shape[1] // SAMPLES_PER_FRAME
        tower, _ = models.dee.bind(models.dee_variables).audio_tower.unbind()
        content_encoder, emotion_encoder = (
            models.generator.predictor.speech_encoder,
            models.dee.speech_encoder,
        )
        length = round(self.seconds * emotion_encoder.rate_hz)
        features = np.zeros((self.batch, length, emotion_encoder.feature_dim), np.float32)

        def content(variables, row):
            return content_encoder.apply(variables, row, _lengths(row), num_frames=num_frames).values

        def emotion(variables, row):
            return emotion_encoder.apply(variables, row, _lengths(row)).values

        def heads(variables, row):
            return tower.apply(variables, row, jnp.ones(row.shape[:2], bool)).mean

        dee_params = models.dee_variables["params"]
        content_params = models.variables["params"]["predictor"]["speech_encoder"]
        return {
            "wav2vec2": _program(content, content_params, self.audio),
            "emotion2vec": _program(emotion, dee_params["speech_encoder"], self.audio),
            "dee_heads": _program(heads, dee_params["audio_tower"], features),
        }


def _lengths(rows: jax.Array) -> jax.Array:
    return jnp.full(rows.shape[0], rows.shape[1], jnp.int32)


def _program(function: Callable, params: PyTree, rows: np.ndarray) -> Callable[[], Any]:
    variables = {"params": jax.device_put(params)}
    one_by_one = rows.shape[0] > 1 and jax.default_backend() == "cpu"

    @jax.jit
    def run(variables, rows):
        if one_by_one:
            return jax.lax.map(lambda row: function(variables, row[None]), rows)
        return function(variables, rows)

    return lambda: jax.block_until_ready(run(variables, rows))


def _measure(case: _Case) -> dict[str, Any]:
    parts = case.parts()
    programs = [case.animate, *parts.values()]
    if importlib.util.find_spec("torch"):
        from benchmarks.torch_encoders import torch_encoders

        programs.append(torch_encoders(case.audio))
    whole, *medians = median_s(*programs, runs=_RUNS.value)
    torch_s = medians.pop() if len(medians) > len(parts) else None
    named = dict(zip(parts, medians, strict=True))
    named["rest"] = max(whole - sum(medians), 0.0)
    return {
        "jax_s": whole,
        "torch_s": torch_s,
        "ratio": None if torch_s is None else whole / torch_s,
        "real_time_factor": whole / (case.batch * case.seconds),
        "parts": named,
    }


def _compiled(models: _Models, seconds: float) -> tuple[Animator, dict[str, float]]:
    """Returns an animator with its programs for batch size 1, and their compile times without and with the cache.

    A compile time is the time to the first result minus that of a warm run, in seconds.
    """
    generator = (models.generator, models.variables)
    taken, usual = [], jax.config.jax_compilation_cache_dir
    with tempfile.TemporaryDirectory() as directory:
        _set_cache(directory)
        for _ in range(2):
            jax.clear_caches()
            animator = Animator((models.dee, models.dee_variables), generator, InferenceOptions())
            case = _Case(models, animator, seconds, 1)
            times = []
            for _ in range(2):
                start = time.perf_counter()
                case.animate()
                times.append(time.perf_counter() - start)
            taken.append(times[0] - times[1])
        _set_cache(usual)
    return animator, dict(zip(("cold", "cached"), taken, strict=True))


def _set_cache(directory: str | None) -> None:
    from jax.experimental.compilation_cache import compilation_cache

    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", directory)


def _benchmark() -> None:
    variant, seconds, large_batch = ("mini", 2.0, 2) if _QUICK.value else ("base", 10.0, 8)
    models = _models(variant)
    animator, compile_s = _compiled(models, seconds)
    result = {"compile_s": compile_s}
    for batch in (1, large_batch):
        result[f"batch_{batch}"] = measured = _measure(_Case(models, animator, seconds, batch))
        print(f"batch {batch}: {measured['jax_s']:.2f} s, PyTorch {measured['torch_s']}", flush=True)
    print(json.dumps({**result, "peak_bytes": peak_bytes(), "variant": variant, "seconds": seconds}))


if __name__ == "__main__":
    run_tool(_benchmark)
