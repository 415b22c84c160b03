"""A tiny model directory of random numbers whose choices depend on everything that they should."""

import jax
import numpy as np
import pytest

from configs import dee, deeptalk, fer, motion_prior
from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.model_dir import Part, save_model
from deeptalk_jax.inference.api import DeepTalk

NUM_IDENTITIES = 3

# Small enough to compile in seconds; odd sizes so that a transposed axis shows.
_SPEECH = {"model.speech.dim": 8, "model.speech.num_mels": 10, "model.speech.num_heads": 2}
_TINY = {
    fer: {"model.hidden_dims": (9, 11, 10, 8, 7, 6, 5)},
    dee: {
        "model.embedding_dim": 6,
        "model.motion_dim": 8,
        "model.motion_layers": 1,
        "model.num_heads": 2,
        "model.mlp_dim": 12,
        "model.initial_log_variance": -1.0,
        "model.speech.window_samples": 400,
        "model.speech.hop_samples": 160,
        **_SPEECH,
    },
    motion_prior: {
        "model.dim": 8,
        "model.mlp_dim": 12,
        "model.decoder_mlp_dim": 20,
        "model.num_heads": 4,
        "model.codebook_size_top": 16,
        "model.codebook_size_bottom": 17,
        "model.codebook_initialisation": "uniform",
        "model.start_after": 0,
    },
    deeptalk: {
        "model.num_identities": 5,
        "model.feature_dim": 8,
        "model.mlp_dim": 12,
        "model.predictor_dim": 16,
        "model.num_layers": 1,
        "model.num_heads": 4,
        "data.num_identities": NUM_IDENTITIES,
        **_SPEECH,
    },
}
# Widens what sound, emotion and identity do to the logits, so that each of them changes codes.
_GAINS = {"content_map": 6.0, "emotion_map": 3.0, "style_map": 3.0}


def _tiny_config(module):
    config = module.get_config("variant=mini").unlock()
    config.update_from_flattened_dict(_TINY[module])
    return config.lock()


def _random_variables(init, generator):
    """Numbers of the sizes that a trained model has, without the minute that compiling `init` takes."""

    def leaf(path, shape):
        module, name = path[-2].key, path[-1].key
        if name in ("scale", "variance"):
            return np.ones(shape.shape, np.float32)
        spread = {"embedding": 1.0}.get(name, 0.1)
        if name == "kernel":
            spread = 1.5 * _GAINS.get(module, 1.0) / np.sqrt(np.prod(shape.shape[:-1]))
        return generator.normal(0, spread, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, jax.random.key(0)))


def _random_centroids(dim):
    mean = np.random.default_rng(8).normal(size=(8, 3, dim)).astype(np.float32)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    return {
        "mean": mean,
        "log_variance": np.full_like(mean, -2.0),
        "num_clips": np.ones(mean.shape[:2], np.int32),
    }


@pytest.fixture(scope="session")
def model_parts():
    """Parts of a whole model directory, by stage name."""
    configs = {module.__name__.split(".")[-1]: _tiny_config(module) for module in _TINY}
    fer_model, dee_model = build.build_fer(configs["fer"]), build.build_dee(configs["dee"])
    generator = build.build_generator(configs["deeptalk"], configs["motion_prior"])
    initialise = {
        "fer": lambda key: build.init_fer(fer_model, key),
        "dee": lambda key: build.init_dee(dee_model, fer_model.feature_dim, key),
        "motion_prior": lambda key: build.init_motion_prior(generator.prior, key),
        "deeptalk": lambda key: build.init_predictor(generator, configs["dee"].model.embedding_dim, key),
    }
    numbers = np.random.default_rng(5)
    parts = {name: Part(configs[name], _random_variables(init, numbers)) for name, init in initialise.items()}
    parts["dee"] = parts["dee"]._replace(statistics=_random_centroids(configs["dee"].model.embedding_dim))
    return parts


@pytest.fixture(scope="session")
def model_directory(model_parts, tmp_path_factory):
    """A model directory, not to be changed."""
    directory = tmp_path_factory.mktemp("tiny") / "model"
    save_model(directory, model_parts, head="procedural")
    return directory


@pytest.fixture(scope="session")
def model(model_directory):
    return DeepTalk.load(model_directory)


@pytest.fixture(scope="session")
def babble():
    """`seconds -> [s]` samples at 16 kHz: syllables of changing pitch and loudness over a little noise."""

    def make(seconds, seed=0):
        generator = np.random.default_rng(seed)
        time_s = np.arange(round(seconds * 16_000)) / 16_000
        pitch_hz = 140 + 60 * np.sin(2 * np.pi * 0.7 * time_s + seed)
        carrier = np.sign(np.sin(2 * np.pi * np.cumsum(pitch_hz) / 16_000))
        loudness = np.clip(np.sin(2 * np.pi * (2.3 + 0.4 * seed) * time_s), 0, 1)
        noise = generator.normal(0, 0.01, len(time_s))
        return (0.2 * carrier * loudness + noise).astype(np.float32)

    return make
