"""Maps from tensor names of the published DEEPTalk checkpoints to variables of the Flax modules.

There is one map per part, which works for a model of any size. Tensor names are those of the part's own file (FER.pth,
DEE.pt, TH-VQVAE.pth, DEEPTalk.pth). Variable paths begin with the Flax collection. The `*_UNUSED` tables list the
tensors that no variable takes, with the reason.
"""

from collections.abc import Mapping

import numpy as np

from deeptalk_jax.interop.speech_names import (
    EMOTION2VEC_UNUSED,
    WAV2VEC2_UNUSED,
    emotion2vec_places,
    wav2vec2_places,
)
from deeptalk_jax.interop.torch_places import (
    Path,
    Place,
    Places,
    as_is,
    batch_norm,
    linear,
    nested,
    reversed_axes,
    scalar,
    transformer,
    transposed_convolution,
)
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import MotionPrior
from deeptalk_jax.models.positions import sinusoidal_positions

WAV2VEC2_PREFIX = "audio_model.model."
EMOTION2VEC_PREFIX = "audio_encoder.embedding_model."
# Prefixes of the copies of other parts inside DEEPTalk.pth. PyTorch uses the second copy of the audio tower, because
# both copies share memory and it is loaded last.
PRIOR_COPY = "sequence_decoder.motion_prior."
DEE_COPY = "sequence_decoder.DEE."
AUDIO_TOWER_COPY = "sequence_decoder.DEE_audio."

_STEP_COUNT = "number of training steps, used only with momentum=None, which the published model does not set"
_TEMPLATE = "template from which nn.TransformerEncoder copied its layers; it is never called"

FER_UNUSED = {"bn_layers.*.num_batches_tracked": _STEP_COUNT}
DEE_UNUSED = {
    **{f"audio_encoder.audio_{name}_layer.*": _TEMPLATE for name in ("encoder", "mean", "uncertainty")},
    **{f"exp_encoder.exp_{name}_layer.*": _TEMPLATE for name in ("encoder", "mean", "uncertainty")},
    **{EMOTION2VEC_PREFIX + pattern: reason for pattern, reason in EMOTION2VEC_UNUSED.items()},
}
PRIOR_UNUSED = {
    "*.num_batches_tracked": _STEP_COUNT,
    "decoder_b.post_transformer_linear.*": "the published decoder computes this layer and discards the result",
}
GENERATOR_UNUSED = {
    "sequence_decoder.obj_vector.*": "embedding of emotion and intensity labels; the published forward pass skips it",
    **{WAV2VEC2_PREFIX + pattern: reason for pattern, reason in WAV2VEC2_UNUSED.items()},
}


def fer_places(model: FER) -> Places:
    """Returns the places of the tensors of FER.pth."""
    hidden = ["in_fc", *(f"hidden_layers.{index}" for index in range(len(model.hidden_dims) - 1))]
    places = linear("out_fc", "params", "classifier")
    for index, name in enumerate(hidden):
        places |= linear(name, "params", f"dense_{index}")
        places |= batch_norm(f"bn_layers.{index}", f"norm_{index}")
    return places


def dee_places(model: DEE) -> Places:
    """Returns the places of the tensors of DEE.pt."""
    speech = emotion2vec_places(model.speech_encoder)
    return {
        **nested(speech, EMOTION2VEC_PREFIX, "params", "speech_encoder"),
        **_tower("audio", model.audio_layers, "params", "audio_tower"),
        **linear("exp_encoder.exp_map", "params", "motion_map"),
        **_tower("exp", model.motion_layers, "params", "motion_tower"),
        "criterion.negative_scale": Place((("params", "scale"),), scalar),
        "criterion.shift": Place((("params", "shift"),), scalar),
    }


def _tower(kind: str, num_layers: int, *flax_path: str) -> Places:
    """Returns the places of one tower without its input layer; `kind` is "audio" or "exp"."""
    torch_name = f"{kind}_encoder"
    places = transformer(f"{torch_name}.{kind}_encoder", num_layers, *flax_path, "encoder")
    places[f"{torch_name}.{kind}_pos_encoder.pos_enc"] = Place((), _check_positions)
    head = (*flax_path, "head")
    for moment, encoder, short in (("mean", "mean", "mean"), ("log_variance", "uncertainty", "std")):
        places |= transformer(f"{torch_name}.{kind}_{encoder}_encoder", 1, *head, f"{moment}_encoder")
        places |= linear(f"{torch_name}.{short}_feature_map", *head, f"{moment}_map")
        places |= _gpo(f"{torch_name}.{short}_pool", *head, f"{moment}_pool", "gpo")
    return places


def _gpo(torch_name: str, *flax_path: str) -> Places:
    places = {f"{torch_name}.linear.weight": Place(((*flax_path, "score", "kernel"),), reversed_axes)}
    for direction, suffix in (("forward", ""), ("backward", "_reverse")):
        for source, short in (("input", "ih"), ("hidden", "hh")):
            for kind, leaf in (("weight", "kernel"), ("bias", "bias")):
                path = (*flax_path, direction, f"{source}_{leaf}")
                places[f"{torch_name}.gru.{kind}_{short}_l0{suffix}"] = Place((path,), reversed_axes)
    return places


def _check_positions(tensor: np.ndarray) -> list[np.ndarray]:
    """Checks that the stored positional encoding equals the one that the towers compute; no variable takes it."""
    expected = sinusoidal_positions(*tensor.shape[1:])
    # PyTorch computes it in float32, where the angle at position 500 has an error of 3e-4.
    if tensor.shape[0] != 1 or np.abs(tensor[0] - expected).max() > 2e-3:
        raise ValueError("expected sinusoidal positions of shape [1, length, channels]")
    return []


def prior_places() -> Places:
    """Returns the places of the tensors of TH-VQVAE.pth."""
    places = {
        "upsample_t.weight": Place((("params", "upsample_top", "kernel"),), transposed_convolution),
        "upsample_t.bias": Place((("params", "upsample_top", "bias"),), as_is),
        **linear("decoder_b.cross_smooth_layer", "params", "output"),
    }
    for short, level in (("t", "top"), ("b", "bottom")):
        encoder, decoder = f"encoder_{level}", f"decoder_{level}"
        places |= linear(f"encoder_{short}.squasher.0.0", "params", encoder, "squasher", "conv")
        places |= batch_norm(f"encoder_{short}.squasher.0.2", encoder, "squasher", "norm")
        places |= linear(f"encoder_{short}.encoder_linear_embedding.net", "params", encoder, "linear")
        places |= transformer(f"encoder_{short}.encoder_transformer", 1, "params", encoder, "transformer")
        expander = ("params", decoder, "expander", "conv")
        places[f"decoder_{short}.expander.0.0.weight"] = Place(
            ((*expander, "kernel"),), transposed_convolution
        )
        places[f"decoder_{short}.expander.0.0.bias"] = Place(((*expander, "bias"),), as_is)
        places |= batch_norm(f"decoder_{short}.expander.0.2", decoder, "expander", "norm")
        places |= linear(f"decoder_{short}.decoder_linear_embedding", "params", decoder, "linear")
        places |= transformer(f"decoder_{short}.decoder_transformer", 1, "params", decoder, "transformer")
        quantizer = ("codebook", f"quantizer_{level}")
        for name, leaf in (
            ("codebook.weight", "embedding"),
            ("ema_count", "ema_count"),
            ("ema_weight", "ema_sum"),
        ):
            places[f"quantize_{short}.{name}"] = Place(((*quantizer, leaf),), as_is)
    return places


def prior_constants(model: MotionPrior) -> Mapping[Path, np.ndarray]:
    """Returns the quantiser state that the published checkpoints do not contain.

    A quantiser without updates would replace its codes by the first training batch, so the number of updates is set
    to 1.
    """
    constants = {}
    for level in ("top", "bottom"):
        size = getattr(model, f"codebook_size_{level}")
        constants["codebook", f"quantizer_{level}", "idle_updates"] = np.zeros(size, np.int32)
        constants["codebook", f"quantizer_{level}", "updates"] = np.ones((), np.int32)
    return constants


def predictor_places(model: Generator) -> Places:
    """Returns the places of the tensors of DEEPTalk.pth that are not copies: index predictor and speech encoder."""
    predictor = model.predictor
    speech = wav2vec2_places(predictor.speech_encoder)
    decoder = "sequence_decoder"
    places = {
        **nested(speech, WAV2VEC2_PREFIX, "params", "speech_encoder"),
        **linear("sequence_encoder.linear", "params", "content_map"),
        **linear(f"{decoder}.emotion_map_layer", "params", "emotion_map"),
        **linear(f"{decoder}.condition_feature_layer", "params", "style_map"),
        **transformer(f"{decoder}.bert_decoder", 1, "params", "face_transformer"),
        **linear(f"{decoder}.decoder", "params", "face_map"),
    }
    for squasher, flax_path in (("squasher_2_t", "predictor_top"), ("squasher_2_b_2", "predictor_bottom")):
        torch_name = f"{decoder}.{squasher}"
        places |= linear(f"{torch_name}.pre_linear", "params", flax_path, "pre_linear")
        places |= transformer(
            f"{torch_name}.encoder", predictor.num_layers, "params", flax_path, "transformer"
        )
        places |= linear(f"{torch_name}.post_linear", "params", flax_path, "post_linear")
    return places
