"""Builds the modules that configs describe: the only place that turns the model section of a config into modules.

Each key of such a section is the field of the same name of its module, see `module_from_section`. A key that older
configs lack takes the default of the field, so a new field needs a default that leaves trained models unchanged.
"""

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float
from ml_collections import ConfigDict

from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE, MotionPrior
from deeptalk_jax.models.one_level_prior import OneLevelPrior
from deeptalk_jax.models.predictor import IndexPredictor
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.mel_encoder import MelEncoder
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2
from deeptalk_jax.models.temporal_vae import TemporalVAE
from deeptalk_jax.models.visual_speech import LipReader, VisualSpeech
from deeptalk_jax.types import (
    MOTION_DIM,
    MOTION_RATE_HZ,
    SAMPLES_PER_FRAME,
    SPEECH_FEATURE_RATE_HZ,
    VISEME_CLASSES,
    Array,
)

PyTree = Any
Prior = MotionPrior | OneLevelPrior | TemporalVAE
ModuleT = TypeVar("ModuleT", bound=nn.Module)

PRIORS = ("hierarchical", "one_level", "temporal_vae")
ONE_LEVEL_CODEBOOKS = ("bottom", "both")
SPEECH_ENCODERS = ("mel", "wav2vec2", "emotion2vec")
DTYPES = ("float32", "bfloat16")
MAX_EMOTION_S = 10  # longest input of both DEE towers, as published


def module_from_section(
    module: type[ModuleT], section: ConfigDict, path: str, *, not_fields: Collection[str] = (), **fields: Any
) -> ModuleT:
    """Builds a module whose fields are the keys of a config section.

    Args:
        module: class of the module.
        section: section of a config; its lists become tuples.
        path: name of the section in the config, for messages: `model` or `model.speech`.
        not_fields: keys of the section that are not fields of the module, because they are read elsewhere.
        **fields: fields that the section does not have, or that take the place of a key.

    Raises:
        ConfigError: the module has no field of the name of a key.
    """
    known = {field.name for field in dataclasses.fields(module)} - {"parent", "name"}
    values = {}
    for key, value in section.items():
        if key in fields or key in not_fields:
            continue
        if key not in known:
            raise ConfigError(
                f"{path}.{key}={value!r}: {module.__name__} has no field of that name; expected one of "
                f"{', '.join(sorted(known))}"
            )
        values[key] = tuple(value) if isinstance(value, list | tuple) else value
    return module(**values, **fields)


def _one_of(key: str, value: Any, choices: Collection[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{key}={value!r}: expected one of {', '.join(choices)}")


def compute_dtype(name: str) -> jnp.dtype:
    """Returns the compute type that `model.dtype` names; parameters, moments and losses are always float32.

    Raises:
        ConfigError: an unknown name.
    """
    _one_of("model.dtype", name, DTYPES)
    return jnp.dtype(name)


def build_speech_encoder(config: ConfigDict, dtype: str = "float32") -> nn.Module:
    """Builds the speech encoder of kind `config.kind`.

    Args:
        config: the section `model.speech`.
        dtype: name of the compute type.

    Raises:
        ConfigError: an unknown kind or type, a key that the encoder lacks, or emotion2vec at another rate than 50 Hz.
    """
    path, rate_hz = "model.speech", config.rate_hz
    _one_of(f"{path}.kind", config.kind, SPEECH_ENCODERS)
    if config.kind == "mel":
        return module_from_section(MelEncoder, config, path, not_fields=("kind",), dtype=compute_dtype(dtype))
    if config.kind == "wav2vec2":
        # The encoder is frozen in DEEPTalk, and has no dropout while the rest is trained.
        rates = ("dropout", "attention_dropout", "activation_dropout", "projection_dropout", "layer_drop")
        return module_from_section(
            Wav2Vec2,
            config,
            path,
            not_fields=("kind", "rate_hz"),
            resample_to_hz=None if rate_hz == SPEECH_FEATURE_RATE_HZ else float(rate_hz),
            dtype=compute_dtype(dtype),
            **{f"{name}_rate": 0.0 for name in rates},
        )
    if rate_hz != SPEECH_FEATURE_RATE_HZ:
        raise ConfigError(
            f"{path}.rate_hz={rate_hz}: expected {SPEECH_FEATURE_RATE_HZ}, the rate of {path}.kind='emotion2vec'"
        )
    return module_from_section(
        Emotion2Vec, config, path, not_fields=("kind", "rate_hz"), dtype=compute_dtype(dtype)
    )


def build_fer(config: ConfigDict) -> FER:
    """Builds FER from `config.model`.

    Raises:
        ConfigError: an unknown compute type, or a key that FER lacks.
    """
    return module_from_section(FER, config.model, "model", dtype=compute_dtype(config.model.dtype))


def build_dee(config: ConfigDict, dtype: str | None = None) -> DEE:
    """Builds DEE from `config.model`.

    Args:
        config: config of the stage.
        dtype: name of the compute type; None for that of the config.

    Raises:
        ConfigError: an unknown compute type, a key that DEE lacks, or a speech encoder that cannot be built.
    """
    model, dtype = config.model, dtype or config.model.dtype
    return module_from_section(
        DEE,
        model,
        "model",
        not_fields=("speech",),
        speech_encoder=build_speech_encoder(model.speech, dtype),
        max_speech_features=MAX_EMOTION_S * model.speech.rate_hz,
        max_motion_frames=MAX_EMOTION_S * MOTION_RATE_HZ,
        dtype=compute_dtype(dtype),
    )


def build_motion_prior(config: ConfigDict, dtype: str | None = None) -> Prior:
    """Builds the prior of kind `config.model.kind`; the baselines are about as large as the hierarchy of that config.

    Args:
        config: config of the stage.
        dtype: name of the compute type; None for that of the config.

    Raises:
        ConfigError: an unknown kind, compute type or codebook, or a key that the prior lacks.
    """
    model = config.model
    _one_of("model.kind", model.kind, PRIORS)
    hierarchy = module_from_section(
        MotionPrior,
        model,
        "model",
        not_fields=("kind", "one_level"),
        dtype=compute_dtype(dtype or model.dtype),
    )
    if model.kind == "hierarchical":
        return hierarchy
    baseline = {
        "mlp_dim": hierarchy.decoder_mlp_dim,
        "num_heads": hierarchy.num_heads,
        "dropout_rate": hierarchy.dropout_rate,
        "dtype": hierarchy.dtype,
    }
    if model.kind == "temporal_vae":
        return TemporalVAE(dim=2 * hierarchy.dim, latent_dim=hierarchy.dim, **baseline)
    _one_of("model.one_level.codebook", model.one_level.codebook, ONE_LEVEL_CODEBOOKS)
    codebook_size = hierarchy.codebook_size_bottom
    if model.one_level.codebook == "both":
        codebook_size += hierarchy.codebook_size_top
    return OneLevelPrior(
        quantizer=hierarchy.new_quantizer(codebook_size, 2 * hierarchy.dim),
        decoder_dim=3 * hierarchy.dim,
        codes_per_4_frames=model.one_level.codes_per_4_frames,
        **baseline,
    )


def build_lip_reader(config: ConfigDict, dtype: str | None = None) -> LipReader:
    """Builds the lip reader from `config.model`, for pictures of `config.model.crop_size` pixels.

    Args:
        config: config of the stage.
        dtype: name of the compute type; None for that of the config.

    Raises:
        ConfigError: an unknown compute type, or a key that the encoder lacks.
    """
    model = config.model
    encoder = module_from_section(
        VisualSpeech, model, "model", not_fields=("crop_size",), dtype=compute_dtype(dtype or model.dtype)
    )
    return LipReader(encoder, len(VISEME_CLASSES))


def build_generator(config: ConfigDict, prior_config: ConfigDict) -> Generator:
    """Builds the index predictor of `config.model` with the prior of `prior_config`, both in `config.model.dtype`.

    Raises:
        ConfigError: an unknown compute type, or a key that the predictor lacks.
        UserError: the prior is not hierarchical, or its code rates are not those of the predictor.
    """
    model = config.model
    _check_prior(prior_config.model)
    prior = build_motion_prior(prior_config, model.dtype)
    predictor = module_from_section(
        IndexPredictor,
        model,
        "model",
        not_fields=("speech",),
        speech_encoder=build_speech_encoder(model.speech, model.dtype),
        codebook_size_top=prior.codebook_size_top,
        codebook_size_bottom=prior.codebook_size_bottom,
        dtype=compute_dtype(model.dtype),
    )
    return Generator(predictor=predictor, prior=prior)


def _check_prior(model: ConfigDict) -> None:
    if model.kind != "hierarchical":
        raise UserError(f"the generator needs a hierarchical motion prior, not model.kind={model.kind!r}")
    rates = (model.frames_per_bottom_code, model.frames_per_top_code)
    published = (FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE)
    if rates != published:
        raise UserError(
            f"the generator needs a motion prior of {published} frames per bottom and top code, not {rates}"
        )


def identity_vector(config: ConfigDict, identity: int | None) -> Float[Array, " i"]:
    """Returns the identity vector of a training speaker (one-hot), or the mean of all training speakers for None.

    Args:
        config: config of the stage deeptalk; `data.num_identities` is the number of training speakers and
            `model.num_identities` the length of the vector.
        identity: number of the speaker, from 0.

    Raises:
        ValueError: there is no training speaker of that number.
    """
    trained, length = config.data.num_identities, config.model.num_identities
    if identity is None:
        return jnp.where(jnp.arange(length) < trained, 1.0 / trained, 0.0)
    if not 0 <= identity < trained:
        raise ValueError(f"identity {identity} is not one of the trained identities 0 to {trained - 1}")
    return jnp.zeros(length).at[identity].set(1.0)


def with_prior(predictor: PyTree, prior: PyTree) -> PyTree:
    """Joins the variables of the index predictor and of the prior to those of the generator."""
    halves = {"predictor": predictor, "prior": prior}
    collections = sorted({name for half in halves.values() for name in half})
    return {
        collection: {half: tree[collection] for half, tree in halves.items() if collection in tree}
        for collection in collections
    }


_EXAMPLE_FRAMES = 32  # length of the example for `init`; the shapes of parameters do not depend on it


def init_fer(model: FER, key: KeyArray) -> PyTree:
    """Returns initial variables of FER."""
    return model.init(key, jnp.zeros((1, MOTION_DIM)))


def init_dee(model: DEE, feature_dim: int, key: KeyArray) -> PyTree:
    """Returns initial variables of DEE; `feature_dim` is the number of channels of FER features."""
    audio = jnp.zeros((1, _EXAMPLE_FRAMES * SAMPLES_PER_FRAME))
    features = jnp.zeros((1, _EXAMPLE_FRAMES, feature_dim))
    length = jnp.ones((1,), jnp.int32)
    return model.init(key, audio, length, features, length)


def init_lip_reader(model: LipReader, crop_size: int, key: KeyArray) -> PyTree:
    """Returns initial variables of a lip reader; `crop_size` is the side of its pictures in pixels."""
    return model.init(key, jnp.zeros((1, 1, crop_size, crop_size)))


def init_motion_prior(model: Prior, key: KeyArray) -> PyTree:
    """Returns initial variables of a motion prior."""
    return model.init(key, jnp.zeros((1, _EXAMPLE_FRAMES, MOTION_DIM)))


def init_predictor(model: Generator, embedding_dim: int, key: KeyArray) -> PyTree:
    """Returns initial variables of the index predictor of a generator, without those of the prior.

    Args:
        model: the generator.
        embedding_dim: size of DEE's emotion space.
        key: random key.
    """
    params_key, sample_key = jax.random.split(key)
    variables = model.init(
        {"params": params_key, "sample": sample_key},
        jnp.zeros((1, _EXAMPLE_FRAMES * SAMPLES_PER_FRAME)),
        jnp.ones((1,), jnp.int32),
        jnp.zeros((1, embedding_dim)),
        jnp.zeros((1, model.predictor.num_identities)),
        num_frames=_EXAMPLE_FRAMES,
        tau=1.0,
        train=False,
    )
    return {name: tree["predictor"] for name, tree in variables.items() if "predictor" in tree}
