"""Maps from tensor names of PyTorch checkpoints to parameters of the speech encoders wav2vec 2.0 and emotion2vec.

The encoders are described in docs/method.md, sections 5 and 7.
"""

import jax
import jax.numpy as jnp

from deeptalk_jax.interop.torch_places import (
    Place,
    Places,
    Shapes,
    State,
    as_is,
    attention_input,
    fill,
    flat,
    linear,
    norm,
    reversed_axes,
    shapes_of,
    strip_prefix,
    without_batch,
)
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

WAV2VEC2_UNUSED = {
    "masked_spec_embed": "vector that replaces masked frames, used only in pre-training and fine-tuning",
    "lm_head.*": "letter classifier of speech recognition",
    "quantizer.*": "targets of the pre-training",
    "project_q.*": "targets of the pre-training",
    "project_hid.*": "predictions of the pre-training",
}
EMOTION2VEC_UNUSED = {
    "modality_encoders.AUDIO.decoder.*": "reconstruction of masked frames, used only in pre-training",
    "_ema": "teacher of the pre-training",
    "_ema.*": "teacher of the pre-training",
    "proj.*": "emotion classifier of fine-tuned releases",
}
# New names of weight normalisation in transformers -> old names, which the published checkpoints use.
_WEIGHT_NORM = {
    "conv.parametrizations.weight.original0": "conv.weight_g",
    "conv.parametrizations.weight.original1": "conv.weight_v",
}


def wav2vec2_places(model: Wav2Vec2) -> Places:
    """Returns the places of the tensors of `transformers.Wav2Vec2Model`, for a model of this size."""
    places: Places = {}
    for index in range(len(model.kernels)):
        torch_name, flax_path = f"feature_extractor.conv_layers.{index}", ("frontend", f"layer_{index}")
        conv = linear(f"{torch_name}.conv", *flax_path, "conv")
        if not model.conv_bias:
            del conv[f"{torch_name}.conv.bias"]
        places |= conv
        if model.conv_norm == "layer" or index == 0:
            places |= norm(f"{torch_name}.layer_norm", *flax_path, "norm")
    places |= norm("feature_projection.layer_norm", "feature_norm")
    places |= linear("feature_projection.projection", "feature_projection")
    positional = "encoder.pos_conv_embed.conv"
    places[f"{positional}.weight_g"] = Place((("positional_conv", "gain"),), flat)
    places[f"{positional}.weight_v"] = Place((("positional_conv", "direction"),), reversed_axes)
    places[f"{positional}.bias"] = Place((("positional_conv", "bias"),), as_is)
    places |= norm("encoder.layer_norm", "encoder_norm")
    for index in range(model.num_layers):
        torch_name, flax_path = f"encoder.layers.{index}", f"layer_{index}"
        for torch_part, flax_part in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
            places |= linear(f"{torch_name}.attention.{torch_part}_proj", flax_path, "attention", flax_part)
        places |= norm(f"{torch_name}.layer_norm", flax_path, "attention_norm")
        places |= linear(f"{torch_name}.feed_forward.intermediate_dense", flax_path, "mlp_in")
        places |= linear(f"{torch_name}.feed_forward.output_dense", flax_path, "mlp_out")
        places |= norm(f"{torch_name}.final_layer_norm", flax_path, "mlp_norm")
    return places


def emotion2vec_places(model: Emotion2Vec) -> Places:
    """Returns the places of the tensors under `model` in emotion2vec_base.pt, for a model of this size."""
    audio = "modality_encoders.AUDIO"
    places = {
        f"{audio}.extra_tokens": Place((("extra_tokens",),), without_batch),
        # Shape [1, 1, heads, 1, 1], or with one leading axis less.
        f"{audio}.alibi_scale": Place((("alibi_scale",),), flat),
    }
    for index in range(len(model.kernels)):
        torch_name, flax_path = f"{audio}.local_encoder.conv_layers.{index}", ("frontend", f"layer_{index}")
        places[f"{torch_name}.0.weight"] = Place(((*flax_path, "conv", "kernel"),), reversed_axes)
        places |= norm(f"{torch_name}.2.1", *flax_path, "norm")
    places |= norm(f"{audio}.project_features.1", "feature_norm")
    places |= linear(f"{audio}.project_features.2", "feature_projection")
    for index in range(model.positional_depth):
        torch_name = f"{audio}.relative_positional_encoder.{index + 1}.0"
        places |= linear(torch_name, "position_branch", f"conv_{index}")
    places |= norm(f"{audio}.context_encoder.norm", "prenet_norm")
    stacks = ((f"{audio}.context_encoder.blocks", "prenet", model.num_prenet_layers),)
    stacks += (("blocks", "block", model.num_layers),)
    for torch_name, flax_path, depth in stacks:
        for index in range(depth):
            places |= _emotion2vec_layer(f"{torch_name}.{index}", f"{flax_path}_{index}")
    return places


def _emotion2vec_layer(torch_name: str, flax_path: str) -> Places:
    return {
        **attention_input(
            f"{torch_name}.attn.qkv.weight", f"{torch_name}.attn.qkv.bias", flax_path, "attention"
        ),
        **linear(f"{torch_name}.attn.proj", flax_path, "attention", "out"),
        **norm(f"{torch_name}.norm1", flax_path, "attention_norm"),
        **linear(f"{torch_name}.mlp.fc1", flax_path, "mlp_in"),
        **linear(f"{torch_name}.mlp.fc2", flax_path, "mlp_out"),
        **norm(f"{torch_name}.norm2", flax_path, "mlp_norm"),
    }


def with_older_names(state: State) -> State:
    """Renames weight normalisation to the names of the published checkpoints."""

    def older(name):
        for new, old in _WEIGHT_NORM.items():
            name = name.replace(new, old)
        return name

    return {older(name): tensor for name, tensor in state.items()}


def wav2vec2_params(state: State, model: Wav2Vec2, *, prefix: str = "") -> dict:
    """Converts the tensors of a wav2vec 2.0 checkpoint to parameters.

    Args:
        state: tensor name -> array.
        model: the module; the tensors must fit its sizes.
        prefix: prefix of the encoder's tensor names; all other tensors are ignored. It is `audio_model.model.` in
            DEEPTalk.pth and `wav2vec2.` in files of a model with a head.

    Returns:
        The `params` collection as numpy arrays.

    Raises:
        UserError: A tensor is missing, left over, or has the wrong shape; the message names it.
    """
    state = with_older_names(strip_prefix(state, prefix))
    return fill(state, wav2vec2_places(model), WAV2VEC2_UNUSED, _shapes(model), prefix=prefix)


def emotion2vec_params(state: State, model: Emotion2Vec, *, prefix: str = "") -> dict:
    """Converts the tensors of an emotion2vec checkpoint to parameters; see `wav2vec2_params`.

    The prefix is `model.` in emotion2vec_base.pt as read by `read_torch_file`, `audio_encoder.embedding_model.` in
    DEE.pt, and `sequence_decoder.DEE.audio_encoder.embedding_model.` in DEEPTalk.pth.
    """
    state = strip_prefix(state, prefix)
    return fill(state, emotion2vec_places(model), EMOTION2VEC_UNUSED, _shapes(model), prefix=prefix)


def _shapes(model: Wav2Vec2 | Emotion2Vec) -> Shapes:
    waveform = jax.ShapeDtypeStruct((1, 800), jnp.float32)
    return shapes_of(jax.eval_shape(model.init, jax.random.key(0), waveform)["params"])
