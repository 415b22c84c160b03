"""Reference numbers and pseudo-weights (tests/goldens/README.md), and tiny encoders."""

import json
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

GOLDENS = Path(__file__).parents[2] / "goldens"

# Distinct sizes, so that a transposed axis cannot pass; three convolutions instead of seven, still to 50 Hz.
_TINY = {"dim": 12, "num_heads": 3, "mlp_dim": 14, "conv_channels": 10, "num_layers": 1}
_TINY |= {"kernels": (10, 3, 3), "strides": (5, 8, 8), "positional_kernel": 7, "positional_groups": 4}


class Goldens:
    """Arrays of one reference file, with the tolerance of each."""

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


@pytest.fixture(scope="session")
def goldens():
    return Goldens


@pytest.fixture(scope="session")
def golden_files():
    return GOLDENS


# Compilation is what these tests spend their time on, hence as little of it as possible.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def jit():
    return quick_jit


@partial(quick_jit, static_argnums=(0, 5))
def _apply(model, variables, waveform, num_samples, rngs, options):
    return model.apply(variables, waveform, num_samples, rngs=rngs, **dict(options))


class Encoder(NamedTuple):
    """A module with parameters; calling it compiles once per module, shapes and options."""

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
    if kind == "emotion2vec":
        model = Emotion2Vec(num_prenet_layers=1, num_extra_tokens=3, positional_depth=2, **_TINY)
    elif kind == "wav2vec2_stable":
        model = Wav2Vec2(conv_norm="layer", conv_bias=True, stable_layer_norm=True, **_TINY)
    else:
        model = Wav2Vec2(**_TINY)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 800), np.float32))
    # Norms, biases and tokens would start at one and zero, where mistakes with them do not show.
    rng = np.random.default_rng(6)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        centred = 1.0 if path[-1].key in ("scale", "gain", "alibi_scale") else 0.0
        return centred + 0.3 * noise

    return Encoder(model, jax.tree_util.tree_map_with_path(draw, shapes))


@pytest.fixture(scope="session")
def make_encoder():
    return tiny_encoder


@pytest.fixture(scope="session", params=["wav2vec2", "wav2vec2_stable", "emotion2vec"])
def encoder(request):
    return tiny_encoder(request.param)


@pytest.fixture(scope="session")
def waveform():
    """Two clips of noise, the second one around a large offset."""
    rng = np.random.default_rng(7)
    return (0.1 * rng.standard_normal((2, 5003)) + np.array([[0.0], [0.3]])).astype(np.float32)
