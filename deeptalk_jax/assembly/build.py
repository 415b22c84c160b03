"""Configs to modules: the only place where model configs are read."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from ml_collections import ConfigDict

from deeptalk_jax.errors import UserError
from deeptalk_jax.models.dee import DEE, Tower
from deeptalk_jax.models.fer import FER
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE, MotionPrior
from deeptalk_jax.models.one_level_prior import OneLevelPrior
from deeptalk_jax.models.predictor import IndexPredictor
from deeptalk_jax.models.quantizer import Quantizer, make_quantizer
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
)

PyTree = Any

Prior = MotionPrior | OneLevelPrior | TemporalVAE

PRIORS = ("hierarchical", "one_level", "temporal_vae")
ONE_LEVEL_CODEBOOKS = ("bottom", "both")
SPEECH_ENCODERS = ("mel", "wav2vec2", "emotion2vec")
DTYPES = ("float32", "bfloat16")
MAX_EMOTION_S = 10  # what both DEE towers take at the most


def compute_dtype(name: str) -> jnp.dtype:
    """The type that `model.dtype` names; parameters, moments and losses are float32 at all times.

    Raises:
        ValueError: an unknown name.
    """
    if name not in DTYPES:
        raise ValueError(f"model.dtype={name!r} is not one of {DTYPES}")
    return jnp.dtype(name)


def build_speech_encoder(config: ConfigDict, dtype: str = "float32") -> nn.Module:
    """The speech encoder of kind `config.kind`, giving `config.rate_hz` features per second, computed in `dtype`.

    Raises:
        ValueError: an unknown kind, or emotion2vec at another rate than 50 Hz.
    """
    rate_hz = config.rate_hz
    if config.kind == "mel":
        # A model that was trained before an option came has that option's default.
        return MelEncoder(dtype=compute_dtype(dtype), **{k: v for k, v in config.items() if k != "kind"})
    if config.kind == "wav2vec2":
        resample_to_hz = None if rate_hz == SPEECH_FEATURE_RATE_HZ else float(rate_hz)
        # Frozen in DEEPTalk, and without dropout while the rest is trained.
        rates = ("dropout", "attention_dropout", "activation_dropout", "projection_dropout", "layer_drop")
        return Wav2Vec2(
            resample_to_hz=resample_to_hz,
            rounding=config.rounding,
            dtype=compute_dtype(dtype),
            **{f"{name}_rate": 0.0 for name in rates},
        )
    if config.kind == "emotion2vec":
        if rate_hz != SPEECH_FEATURE_RATE_HZ:
            raise ValueError(f"emotion2vec gives {SPEECH_FEATURE_RATE_HZ} features per second, not {rate_hz}")
        return Emotion2Vec(dtype=compute_dtype(dtype))
    raise ValueError(f"speech.kind={config.kind!r} is not one of {SPEECH_ENCODERS}")


def build_fer(config: ConfigDict) -> FER:
    """FER from `config.model`.

    Raises:
        ValueError: an unknown type.
    """
    model = config.model
    return FER(
        hidden_dims=tuple(model.hidden_dims),
        feature_layer=model.feature_layer,
        num_classes=model.num_classes,
        dropout_rate=model.dropout_rate,
        feature_path=model.feature_path,
        dtype=compute_dtype(model.dtype),
    )


def build_dee(config: ConfigDict, dtype: str | None = None) -> DEE:
    """DEE from `config.model`, computed in `dtype`, by default that of the config.

    Raises:
        ValueError: an unknown type, or no component.
    """
    model, dtype_name = config.model, dtype or config.model.dtype
    dtype = compute_dtype(dtype_name)
    if model.num_components < 1:
        raise ValueError(f"model.num_components={model.num_components} is too small; expected at least 1")

    def tower(num_layers, rate_hz):
        return Tower(
            num_layers,
            model.num_heads,
            model.mlp_dim,
            MAX_EMOTION_S * rate_hz,
            model.embedding_dim,
            model.pooling,
            model.dropout_rate,
            model.initial_log_variance,
            model.num_components,
            dtype,
        )

    return DEE(
        speech_encoder=build_speech_encoder(model.speech, dtype_name),
        audio_tower=tower(model.audio_layers, model.speech.rate_hz),
        motion_tower=tower(model.motion_layers, MOTION_RATE_HZ),
        motion_dim=model.motion_dim,
        initial_scale=model.initial_scale,
        initial_shift=model.initial_shift,
        dtype=dtype,
    )


def build_motion_prior(config: ConfigDict, dtype: str | None = None) -> Prior:
    """The prior of kind `config.model.kind`; the baselines are about as large as the hierarchy of the same config.

    Args:
        config: of the stage.
        dtype: compute type, by default that of the config.

    Raises:
        ValueError: an unknown kind or type.
    """
    model, dtype = config.model, compute_dtype(dtype or config.model.dtype)
    if model.kind == "hierarchical":
        return MotionPrior(
            dim=model.dim,
            mlp_dim=model.mlp_dim,
            decoder_mlp_dim=model.decoder_mlp_dim,
            num_heads=model.num_heads,
            codebook_size_top=model.codebook_size_top,
            codebook_size_bottom=model.codebook_size_bottom,
            dropout_rate=model.dropout_rate,
            ema_decay=model.ema_decay,
            commitment_weight=model.commitment_weight,
            ema_smoothing=model.ema_smoothing,
            codebook_initialisation=model.codebook_initialisation,
            start_after=model.start_after,
            revive_after=model.revive_after,
            codebook_update=model.codebook_update,
            frames_per_top_code=model.frames_per_top_code,
            frames_per_bottom_code=model.frames_per_bottom_code,
            top_condition_scale=model.top_condition_scale,
            dtype=dtype,
        )
    baseline = {
        "mlp_dim": model.decoder_mlp_dim,
        "num_heads": model.num_heads,
        "dropout_rate": model.dropout_rate,
        "dtype": dtype,
    }
    if model.kind == "one_level":
        return OneLevelPrior(
            quantizer=_one_level_quantizer(model),
            decoder_dim=3 * model.dim,
            codes_per_4_frames=model.one_level.codes_per_4_frames,
            **baseline,
        )
    if model.kind == "temporal_vae":
        return TemporalVAE(dim=2 * model.dim, latent_dim=model.dim, **baseline)
    raise ValueError(f"model.kind={model.kind!r} is not one of {PRIORS}")


def _one_level_quantizer(model: ConfigDict) -> Quantizer:
    """A codebook of the bottom level's size, or of the sizes of both levels, in the bottom level's dimension."""
    sizes = (model.codebook_size_bottom, model.codebook_size_bottom + model.codebook_size_top)
    if model.one_level.codebook not in ONE_LEVEL_CODEBOOKS:
        raise ValueError(
            f"model.one_level.codebook={model.one_level.codebook!r} is not one of {ONE_LEVEL_CODEBOOKS}"
        )
    return make_quantizer(
        model.codebook_update,
        sizes[ONE_LEVEL_CODEBOOKS.index(model.one_level.codebook)],
        2 * model.dim,
        decay=model.ema_decay,
        commitment_weight=model.commitment_weight,
        ema_smoothing=model.ema_smoothing,
        initialisation=model.codebook_initialisation,
        start_after=model.start_after,
        revive_after=model.revive_after,
    )


def build_lip_reader(config: ConfigDict, dtype: str | None = None) -> LipReader:
    """Lip reader from `config.model`; the size of its pictures is `config.model.crop_size`.

    Args:
        config: of the stage.
        dtype: compute type, by default that of the config.

    Raises:
        ValueError: an unknown type.
    """
    model = config.model
    encoder = VisualSpeech(
        model.front_channels,
        tuple(model.channels),
        tuple(model.num_blocks),
        model.activation,
        dtype=compute_dtype(dtype or model.dtype),
    )
    return LipReader(encoder, len(VISEME_CLASSES))


def build_generator(config: ConfigDict, prior_config: ConfigDict) -> Generator:
    """Index predictor from `config.model` in front of the prior of `prior_config`, both computed in `model.dtype`.

    Raises:
        ValueError: an unknown type.
        UserError: the prior is not hierarchical, or its codes have another rate than the predictor's.
    """
    model = config.model
    _check_prior(prior_config.model)
    prior = build_motion_prior(prior_config, model.dtype)
    predictor = IndexPredictor(
        speech_encoder=build_speech_encoder(model.speech, model.dtype),
        num_identities=model.num_identities,
        feature_dim=model.feature_dim,
        mlp_dim=model.mlp_dim,
        predictor_dim=model.predictor_dim,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        codebook_size_top=prior.codebook_size_top,
        codebook_size_bottom=prior.codebook_size_bottom,
        dropout_rate=model.dropout_rate,
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


def identity_vector(config: ConfigDict, identity: int | None) -> jnp.ndarray:
    """`[num_identities]`: one-hot of a training identity, or the mean of all for None.

    Raises:
        ValueError: no such training identity.
    """
    trained, length = config.data.num_identities, config.model.num_identities
    if identity is None:
        return jnp.where(jnp.arange(length) < trained, 1.0 / trained, 0.0)
    if not 0 <= identity < trained:
        raise ValueError(f"identity {identity} is not one of the trained identities 0 to {trained - 1}")
    return jnp.zeros(length).at[identity].set(1.0)


def with_prior(predictor: PyTree, prior: PyTree) -> PyTree:
    """Variables of the generator from those of its trained and its frozen half."""
    halves = {"predictor": predictor, "prior": prior}
    collections = sorted({name for half in halves.values() for name in half})
    return {
        collection: {half: tree[collection] for half, tree in halves.items() if collection in tree}
        for collection in collections
    }


# Initialisation: shapes of parameters do not depend on the length of the example.
_EXAMPLE_FRAMES = 32


def init_fer(model: FER, key: KeyArray) -> PyTree:
    """Variables of FER before training."""
    return model.init(key, jnp.zeros((1, MOTION_DIM)))


def init_dee(model: DEE, feature_dim: int, key: KeyArray) -> PyTree:
    """Variables of DEE before training, for FER features of so many channels."""
    audio = jnp.zeros((1, _EXAMPLE_FRAMES * SAMPLES_PER_FRAME))
    features = jnp.zeros((1, _EXAMPLE_FRAMES, feature_dim))
    length = jnp.ones((1,), jnp.int32)
    return model.init(key, audio, length, features, length)


def init_lip_reader(model: LipReader, crop_size: int, key: KeyArray) -> PyTree:
    """Variables of a lip reader before training."""
    return model.init(key, jnp.zeros((1, 1, crop_size, crop_size)))


def init_motion_prior(model: Prior, key: KeyArray) -> PyTree:
    """Variables of a motion prior before training."""
    return model.init(key, jnp.zeros((1, _EXAMPLE_FRAMES, MOTION_DIM)))


def init_predictor(model: Generator, embedding_dim: int, key: KeyArray) -> PyTree:
    """Variables of the generator's index predictor before training; the prior's are another stage's."""
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
