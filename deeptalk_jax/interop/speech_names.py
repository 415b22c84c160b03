"""Names: from the tensors of PyTorch checkpoints to the parameters of our speech encoders."""

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
    "masked_spec_embed": "vector put in place of masked frames, for pre-training and fine-tuning only",
    "lm_head.*": "letters for speech recognition",
    "quantizer.*": "targets of pre-training",
    "project_q.*": "targets of pre-training",
    "project_hid.*": "prediction of pre-training",
}
EMOTION2VEC_UNUSED = {
    "modality_encoders.AUDIO.decoder.*": "reconstructs masked frames in pre-training only",
    "_ema": "teacher of pre-training",
    "_ema.*": "teacher of pre-training",
    "proj.*": "emotion classes of fine-tuned releases",
}
# transformers writes newer names for weight norm; the older ones are those of the published checkpoints.
_WEIGHT_NORM = {
    "conv.parametrizations.weight.original0": "conv.weight_g",
    "conv.parametrizations.weight.original1": "conv.weight_v",
}


def wav2vec2_places(model: Wav2Vec2) -> Places:
    """Tensor name (as in `transformers.Wav2Vec2Model`) -> place, for a model of this size."""
    places: Places = {}
    for index in range(len(model.kernels)):
        theirs, ours = f"feature_extractor.conv_layers.{index}", ("frontend", f"layer_{index}")
        conv = linear(f"{theirs}.conv", *ours, "conv")
        if not model.conv_bias:
            del conv[f"{theirs}.conv.bias"]
        places |= conv
        if model.conv_norm == "layer" or index == 0:
            places |= norm(f"{theirs}.layer_norm", *ours, "norm")
    places |= norm("feature_projection.layer_norm", "feature_norm")
    places |= linear("feature_projection.projection", "feature_projection")
    positional = "encoder.pos_conv_embed.conv"
    places[f"{positional}.weight_g"] = Place((("positional_conv", "gain"),), flat)
    places[f"{positional}.weight_v"] = Place((("positional_conv", "direction"),), reversed_axes)
    places[f"{positional}.bias"] = Place((("positional_conv", "bias"),), as_is)
    places |= norm("encoder.layer_norm", "encoder_norm")
    for index in range(model.num_layers):
        theirs, ours = f"encoder.layers.{index}", f"layer_{index}"
        for their_part, our_part in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
            places |= linear(f"{theirs}.attention.{their_part}_proj", ours, "attention", our_part)
        places |= norm(f"{theirs}.layer_norm", ours, "attention_norm")
        places |= linear(f"{theirs}.feed_forward.intermediate_dense", ours, "mlp_in")
        places |= linear(f"{theirs}.feed_forward.output_dense", ours, "mlp_out")
        places |= norm(f"{theirs}.final_layer_norm", ours, "mlp_norm")
    return places


def emotion2vec_places(model: Emotion2Vec) -> Places:
    """Tensor name (as in the `model` part of emotion2vec_base.pt) -> place, for a model of this size."""
    audio = "modality_encoders.AUDIO"
    places = {
        f"{audio}.extra_tokens": Place((("extra_tokens",),), without_batch),
        # (1, 1, heads, 1, 1), or without one of the leading axes.
        f"{audio}.alibi_scale": Place((("alibi_scale",),), flat),
    }
    for index in range(len(model.kernels)):
        theirs, ours = f"{audio}.local_encoder.conv_layers.{index}", ("frontend", f"layer_{index}")
        places[f"{theirs}.0.weight"] = Place(((*ours, "conv", "kernel"),), reversed_axes)
        places |= norm(f"{theirs}.2.1", *ours, "norm")
    places |= norm(f"{audio}.project_features.1", "feature_norm")
    places |= linear(f"{audio}.project_features.2", "feature_projection")
    for index in range(model.positional_depth):
        theirs = f"{audio}.relative_positional_encoder.{index + 1}.0"
        places |= linear(theirs, "position_branch", f"conv_{index}")
    places |= norm(f"{audio}.context_encoder.norm", "prenet_norm")
    stacks = ((f"{audio}.context_encoder.blocks", "prenet", model.num_prenet_layers),)
    stacks += (("blocks", "block", model.num_layers),)
    for theirs, ours, depth in stacks:
        for index in range(depth):
            places |= _emotion2vec_layer(f"{theirs}.{index}", f"{ours}_{index}")
    return places


def _emotion2vec_layer(theirs: str, ours: str) -> Places:
    return {
        **attention_input(f"{theirs}.attn.qkv.weight", f"{theirs}.attn.qkv.bias", ours, "attention"),
        **linear(f"{theirs}.attn.proj", ours, "attention", "out"),
        **norm(f"{theirs}.norm1", ours, "attention_norm"),
        **linear(f"{theirs}.mlp.fc1", ours, "mlp_in"),
        **linear(f"{theirs}.mlp.fc2", ours, "mlp_out"),
        **norm(f"{theirs}.norm2", ours, "mlp_norm"),
    }


def with_older_names(state: State) -> State:
    """The same tensors, weight norm under the names of the published checkpoints."""

    def older(name):
        for new, old in _WEIGHT_NORM.items():
            name = name.replace(new, old)
        return name

    return {older(name): tensor for name, tensor in state.items()}


def wav2vec2_params(state: State, model: Wav2Vec2, *, prefix: str = "") -> dict:
    """Parameters of `model` from a checkpoint of the same size.

    Args:
        state: tensor name -> array.
        model: decides the shapes.
        prefix: taken off the names; tensors without it are somebody else's. `audio_model.model.` in
            DEEPTalk.pth, `wav2vec2.` in files of a model with a head.

    Returns:
        The `params` collection, numpy arrays.

    Raises:
        UserError: a tensor is missing, left over, or of the wrong shape; the message names it.
    """
    state = with_older_names(strip_prefix(state, prefix))
    return fill(state, wav2vec2_places(model), WAV2VEC2_UNUSED, _shapes(model), prefix=prefix)


def emotion2vec_params(state: State, model: Emotion2Vec, *, prefix: str = "") -> dict:
    """Parameters of `model` from a checkpoint; as `wav2vec2_params`.

    The prefix is `model.` for emotion2vec_base.pt as `read_torch_file` gives it,
    `audio_encoder.embedding_model.` in DEE.pt, and that behind `sequence_decoder.DEE.` in DEEPTalk.pth.
    """
    state = strip_prefix(state, prefix)
    return fill(state, emotion2vec_places(model), EMOTION2VEC_UNUSED, _shapes(model), prefix=prefix)


def _shapes(model: Wav2Vec2 | Emotion2Vec) -> Shapes:
    waveform = jax.ShapeDtypeStruct((1, 800), jnp.float32)
    return shapes_of(jax.eval_shape(model.init, jax.random.key(0), waveform)["params"])
