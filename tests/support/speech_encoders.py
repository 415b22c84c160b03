"""Tiny speech encoders, and the reference numbers of published ones (tests/goldens/README.md)."""

import json
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

GOLDENS = Path(__file__).parents[1] / "goldens"

# Distinct sizes, so that a transposed axis fails; three convolutions instead of seven, still down to 50 Hz.
_TINY = {"dim": 12, "num_heads": 3, "mlp_dim": 14, "conv_channels": 10, "num_layers": 1}
_TINY |= {"kernels": (10, 3, 3), "strides": (5, 8, 8), "positional_kernel": 7, "positional_groups": 4}

# Compiling takes most of the time of these tests.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


class Goldens:
    """Arrays of one reference file, each with its tolerance."""

    def __init__(self, part: str):
        self.arrays = np.load(GOLDENS / f"speech_{part}.npz")
        manifest = json.loads((GOLDENS / "speech_manifest.json").read_text())
        self.tolerances = manifest["tolerances"][part]
        self.tensors = manifest.get(part, [])

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def check(self, name: str, actual) -> None:
        expected = self.arrays[name]
        assert np.shape(actual) == expected.shape, name
        np.testing.assert_allclose(actual, expected, rtol=0, atol=self.tolerances[name], err_msg=name)


@partial(quick_jit, static_argnums=(0, 5))
def _apply(model, variables, waveform, num_samples, rngs, options):
    return model.apply(variables, waveform, num_samples, rngs=rngs, **dict(options))


class Encoder(NamedTuple):
    """A module with its variables; a call compiles once per module, shapes and options."""

    model: Wav2Vec2 | Emotion2Vec
    variables: dict

    def __call__(self, waveform, num_samples=None, *, rngs=None, **options):
        if num_samples is None:
            num_samples = np.full(len(waveform), waveform.shape[1])
        num_samples = np.asarray(num_samples, np.int32)
        return _apply(self.model, self.variables, waveform, num_samples, rngs, tuple(options.items()))

    def clone(self, **fields):
        return Encoder(self.model.clone(**fields), self.variables)


@cache
def tiny_encoder(kind: str) -> Encoder:
    """Returns a `wav2vec2`, `wav2vec2_stable` or `emotion2vec` encoder with random weights."""
    if kind == "emotion2vec":
        model = Emotion2Vec(num_prenet_layers=1, num_extra_tokens=3, positional_depth=2, **_TINY)
    elif kind == "wav2vec2_stable":
        model = Wav2Vec2(conv_norm="layer", conv_bias=True, stable_layer_norm=True, **_TINY)
    else:
        model = Wav2Vec2(**_TINY)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 800), np.float32))
    # `init` sets norms, biases and tokens to ones and zeros, which would hide mistakes in their use.
    rng = np.random.default_rng(6)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        centred = 1.0 if path[-1].key in ("scale", "gain", "alibi_scale") else 0.0
        return centred + 0.3 * noise

    return Encoder(model, jax.tree_util.tree_map_with_path(draw, shapes))
