"""Tiny models with random weights: no training and no compilation of `init`."""

import jax
import numpy as np

from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.model_dir import Part
from tests.support.tiny_stages import tiny_model_config

NUM_IDENTITIES = 3

# Larger codebooks than in training, so that few choices coincide by chance; two kinds of identities in number.
_CHANGES = {
    "fer": {},
    "dee": {"model.initial_log_variance": -1.0},
    "motion_prior": {
        "model.codebook_size_top": 16,
        "model.codebook_size_bottom": 17,
        "model.codebook_initialisation": "uniform",
        "model.start_after": 0,
    },
    "deeptalk": {
        "model.num_identities": 5,
        "data.num_identities": NUM_IDENTITIES,
        "data.window_frames": 32,
        "model.num_visemes": 0,
        "model.speech.num_layers": 1,
        "model.speech.subtract_band_means": False,  # random weights need the whole spectrum to tell sounds apart
    },
}
# Amplifies what speech, emotion and identity add to the logits, so that each of them changes the chosen codes.
_GAINS = {"content_map": 6.0, "emotion_map": 3.0, "style_map": 3.0}


def random_variables(init, generator: np.random.Generator) -> dict:
    """Draws variables of the magnitudes that a trained model has.

    Args:
        init: `key -> variables`; only its shapes are used, because compiling it takes up to a minute.
        generator: source of the random numbers.
    """

    def leaf(path, shape):
        module, name = path[-2].key, path[-1].key
        if name in ("scale", "variance"):
            return np.ones(shape.shape, np.float32)
        spread = {"embedding": 1.0}.get(name, 0.1)
        if name == "kernel":
            spread = 1.5 * _GAINS.get(module, 1.0) / np.sqrt(np.prod(shape.shape[:-1]))
        return generator.normal(0, spread, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init, jax.random.key(0)))


def random_centroids(dim: int) -> dict[str, np.ndarray]:
    """Returns emotion statistics of a model directory: unit vectors with a variance, one clip in each cell."""
    mean = np.random.default_rng(8).normal(size=(8, 3, dim)).astype(np.float32)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    return {
        "mean": mean,
        "log_variance": np.full_like(mean, -2.0),
        "num_clips": np.ones(mean.shape[:2], np.int32),
    }


def random_model_parts() -> dict[str, Part]:
    """Returns all parts of a model directory, by stage name."""
    configs = {stage: tiny_model_config(stage, **changes) for stage, changes in _CHANGES.items()}
    fer_model, dee_model = build.build_fer(configs["fer"]), build.build_dee(configs["dee"])
    generator = build.build_generator(configs["deeptalk"], configs["motion_prior"])
    embedding_dim = configs["dee"].model.embedding_dim
    initialise = {
        "fer": lambda key: build.init_fer(fer_model, key),
        "dee": lambda key: build.init_dee(dee_model, fer_model.feature_dim, key),
        "motion_prior": lambda key: build.init_motion_prior(generator.prior, key),
        "deeptalk": lambda key: build.init_predictor(generator, embedding_dim, key),
    }
    numbers = np.random.default_rng(5)
    parts = {name: Part(configs[name], random_variables(init, numbers)) for name, init in initialise.items()}
    parts["dee"] = parts["dee"]._replace(statistics=random_centroids(embedding_dim))
    return parts
