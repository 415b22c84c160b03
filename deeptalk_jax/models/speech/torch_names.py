"""Names: from the tensors of PyTorch checkpoints to the parameters of our speech encoders.

Works on numpy arrays; PyTorch is not needed. Every tensor of a checkpoint must either have a place here or be
on a list of tensors known to have none, each with its reason; every parameter of ours must be filled.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from deeptalk_jax.errors import UserError
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2

Path = tuple[str, ...]
State = Mapping[str, np.ndarray]

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


class Place(NamedTuple):
    """Where a tensor goes.

    Attributes:
        paths: the parameters that it fills: one, or three for a joint query, key and value projection.
        convert: turns the tensor into one array per path; may raise ValueError if the shape makes no sense.
            The
            heads of an attention projection are split afterwards, by reshaping to the parameter's shape.
    """

    paths: tuple[Path, ...]
    convert: Callable[[np.ndarray], list[np.ndarray]]


def _as_is(tensor: np.ndarray) -> list[np.ndarray]:
    return [tensor]


def _reversed_axes(tensor: np.ndarray) -> list[np.ndarray]:
    """`[out, in]` -> `[in, out]` for linear layers, `[out, in, k]` -> `[k, in, out]` for convolutions."""
    return [tensor.T]


def _joint_projection(tensor: np.ndarray) -> list[np.ndarray]:
    return [part.T for part in np.split(tensor, 3, axis=0)]


def _flat(tensor: np.ndarray) -> list[np.ndarray]:
    return [tensor.reshape(-1)]


def _without_batch(tensor: np.ndarray) -> list[np.ndarray]:
    if tensor.shape[0] != 1:
        raise ValueError("the first axis should have size 1")
    return [tensor[0]]


def _linear(theirs: str, *ours: str) -> dict[str, Place]:
    return {
        f"{theirs}.weight": Place(((*ours, "kernel"),), _reversed_axes),
        f"{theirs}.bias": Place(((*ours, "bias"),), _as_is),
    }


def _norm(theirs: str, *ours: str) -> dict[str, Place]:
    return {
        f"{theirs}.weight": Place(((*ours, "scale"),), _as_is),
        f"{theirs}.bias": Place(((*ours, "bias"),), _as_is),
    }


def wav2vec2_places(model: Wav2Vec2) -> dict[str, Place]:
    """Tensor name (as in `transformers.Wav2Vec2Model`) -> place, for a model of this size."""
    places: dict[str, Place] = {}
    for index in range(len(model.kernels)):
        theirs, ours = f"feature_extractor.conv_layers.{index}", ("frontend", f"layer_{index}")
        conv = _linear(f"{theirs}.conv", *ours, "conv")
        if not model.conv_bias:
            del conv[f"{theirs}.conv.bias"]
        places |= conv
        if model.conv_norm == "layer" or index == 0:
            places |= _norm(f"{theirs}.layer_norm", *ours, "norm")
    places |= _norm("feature_projection.layer_norm", "feature_norm")
    places |= _linear("feature_projection.projection", "feature_projection")
    positional = "encoder.pos_conv_embed.conv"
    places[f"{positional}.weight_g"] = Place((("positional_conv", "gain"),), _flat)
    places[f"{positional}.weight_v"] = Place((("positional_conv", "direction"),), _reversed_axes)
    places[f"{positional}.bias"] = Place((("positional_conv", "bias"),), _as_is)
    places |= _norm("encoder.layer_norm", "encoder_norm")
    for index in range(model.num_layers):
        theirs, ours = f"encoder.layers.{index}", f"layer_{index}"
        for their_part, our_part in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
            places |= _linear(f"{theirs}.attention.{their_part}_proj", ours, "attention", our_part)
        places |= _norm(f"{theirs}.layer_norm", ours, "attention_norm")
        places |= _linear(f"{theirs}.feed_forward.intermediate_dense", ours, "mlp_in")
        places |= _linear(f"{theirs}.feed_forward.output_dense", ours, "mlp_out")
        places |= _norm(f"{theirs}.final_layer_norm", ours, "mlp_norm")
    return places


def emotion2vec_places(model: Emotion2Vec) -> dict[str, Place]:
    """Tensor name (as in the `model` part of emotion2vec_base.pt) -> place, for a model of this size."""
    audio = "modality_encoders.AUDIO"
    places = {
        f"{audio}.extra_tokens": Place((("extra_tokens",),), _without_batch),
        # (1, 1, heads, 1, 1), or without one of the leading axes.
        f"{audio}.alibi_scale": Place((("alibi_scale",),), _flat),
    }
    for index in range(len(model.kernels)):
        theirs, ours = f"{audio}.local_encoder.conv_layers.{index}", ("frontend", f"layer_{index}")
        places[f"{theirs}.0.weight"] = Place(((*ours, "conv", "kernel"),), _reversed_axes)
        places |= _norm(f"{theirs}.2.1", *ours, "norm")
    places |= _norm(f"{audio}.project_features.1", "feature_norm")
    places |= _linear(f"{audio}.project_features.2", "feature_projection")
    for index in range(model.positional_depth):
        theirs = f"{audio}.relative_positional_encoder.{index + 1}.0"
        places |= _linear(theirs, "position_branch", f"conv_{index}")
    places |= _norm(f"{audio}.context_encoder.norm", "prenet_norm")
    stacks = ((f"{audio}.context_encoder.blocks", "prenet", model.num_prenet_layers),)
    stacks += (("blocks", "block", model.num_layers),)
    for theirs, ours, depth in stacks:
        for index in range(depth):
            places |= _emotion2vec_layer(f"{theirs}.{index}", f"{ours}_{index}")
    return places


def _emotion2vec_layer(theirs: str, ours: str) -> dict[str, Place]:
    parts = ("query", "key", "value")
    kernels = tuple((ours, "attention", part, "kernel") for part in parts)
    biases = tuple((ours, "attention", part, "bias") for part in parts)
    return {
        f"{theirs}.attn.qkv.weight": Place(kernels, _joint_projection),
        f"{theirs}.attn.qkv.bias": Place(biases, _joint_projection),
        **_linear(f"{theirs}.attn.proj", ours, "attention", "out"),
        **_norm(f"{theirs}.norm1", ours, "attention_norm"),
        **_linear(f"{theirs}.mlp.fc1", ours, "mlp_in"),
        **_linear(f"{theirs}.mlp.fc2", ours, "mlp_out"),
        **_norm(f"{theirs}.norm2", ours, "mlp_norm"),
    }


def wav2vec2_params(state: State, model: Wav2Vec2, *, prefix: str = "") -> dict:
    """Parameters of `model` from a checkpoint of the same size.

    Args:
        state: tensor name -> array.
        model: decides the shapes.
        prefix: taken off the names; tensors without it are somebody else's. `audio_model.model.` in
            DEEPTalk.pth,
            `wav2vec2.` in files of a model with a head.

    Returns:
        The `params` collection, numpy arrays.

    Raises:
        UserError: a tensor is missing, left over, or of the wrong shape; the message names it.
    """
    state = _strip(state, prefix)
    renamed = {}
    for name, tensor in state.items():
        for new, old in _WEIGHT_NORM.items():
            name = name.replace(new, old)
        renamed[name] = tensor
    return _fill(renamed, wav2vec2_places(model), WAV2VEC2_UNUSED, _shapes(model), prefix)


def emotion2vec_params(state: State, model: Emotion2Vec, *, prefix: str = "") -> dict:
    """Parameters of `model` from a checkpoint; as `wav2vec2_params`.

    The prefix is `model.` for emotion2vec_base.pt as `read_torch_file` gives it,
    `audio_encoder.embedding_model.` in
    DEE.pt, and that behind `sequence_decoder.DEE.` in DEEPTalk.pth.
    """
    state = _strip(state, prefix)
    return _fill(state, emotion2vec_places(model), EMOTION2VEC_UNUSED, _shapes(model), prefix)


def _strip(state: State, prefix: str) -> dict[str, np.ndarray]:
    stripped = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not stripped:
        raise UserError(f"no tensor of the checkpoint has a name that begins with {prefix!r}")
    return stripped


def _shapes(model: Wav2Vec2 | Emotion2Vec) -> dict[Path, tuple[int, ...]]:
    waveform = jax.ShapeDtypeStruct((1, 800), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), waveform)
    return {path: leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}


def _fill(
    state: State,
    places: Mapping[str, Place],
    unused: Mapping[str, str],
    shapes: Mapping[Path, tuple[int, ...]],
    prefix: str,
) -> dict:
    filled: dict[Path, np.ndarray] = {}
    for name, place in places.items():
        if name not in state:
            raise UserError(
                f"the checkpoint has no tensor {prefix + name!r}, which {_dotted(place.paths[0])} needs"
            )
        for path, array in zip(place.paths, _converted(state[name], name, place, prefix), strict=True):
            filled[path] = _fitted(array, path, shapes[path], prefix + name, state[name].shape)
    for name in state:
        if name not in places and not any(fnmatchcase(name, pattern) for pattern in unused):
            raise UserError(f"the checkpoint holds {prefix + name!r}, which has no place in this model")
    if missing := set(shapes) - set(filled):
        # The tables above and the modules disagree: a mistake of ours, not of the file.
        raise AssertionError(f"no tensor is meant for {sorted(map(_dotted, missing))}")
    return unflatten_dict(filled)


def _converted(tensor: np.ndarray, name: str, place: Place, prefix: str) -> list[np.ndarray]:
    try:
        return place.convert(tensor)
    except (ValueError, IndexError) as error:
        raise UserError(
            f"tensor {prefix + name!r} has the unexpected shape {tensor.shape}: {error}"
        ) from error


def _fitted(
    array: np.ndarray, path: Path, shape: tuple[int, ...], name: str, their_shape: tuple[int, ...]
) -> np.ndarray:
    """Splits the heads of attention projections; anything else must have the right shape already."""
    split_heads = len(path) > 2 and path[-3] == "attention" and array.size == np.prod(shape)
    plain = _without_heads(path, shape) if split_heads else shape
    if array.shape != plain:
        raise UserError(
            f"tensor {name!r} has shape {tuple(their_shape)}, which does not fit {_dotted(path)} of shape {shape}"
        )
    return np.ascontiguousarray(array.reshape(shape))


def _without_heads(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an attention weight when the axes (heads, head size) are one."""
    if path[-1] == "bias":
        return (int(np.prod(shape)),)
    if path[-2] == "out":
        return (shape[0] * shape[1], shape[2])
    return (shape[0], shape[1] * shape[2])


def _dotted(path: Path) -> str:
    return ".".join(path)
