"""Tensor maps of the speech encoders: round trips, errors that name the tensor, and coverage of published files."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from deeptalk_jax.errors import UserError
from deeptalk_jax.interop.speech_names import (
    EMOTION2VEC_UNUSED,
    WAV2VEC2_UNUSED,
    emotion2vec_params,
    emotion2vec_places,
    wav2vec2_params,
    wav2vec2_places,
)
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.models.speech.wav2vec2 import Wav2Vec2


@pytest.fixture
def wav2vec2(make_encoder):
    """A tiny model and a checkpoint of it in PyTorch's layout."""
    model, variables = make_encoder("wav2vec2")
    return model, _state(wav2vec2_places(model), variables)


@pytest.fixture
def emotion2vec(make_encoder):
    model, variables = make_encoder("emotion2vec")
    return model, _state(emotion2vec_places(model), variables)


def _state(places, variables):
    """Converts parameters to PyTorch's layout, the inverse of the tested map."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten_dict(variables["params"]).items()}

    def theirs(path):
        leaf, module = flat[path], path[-2] if len(path) > 1 else ""
        if module in ("query", "key", "value"):
            leaf = leaf.reshape(12, 12).T if path[-1] == "kernel" else leaf.reshape(12)
        elif module == "out" and path[-1] == "kernel":
            leaf = leaf.reshape(12, 12).T
        elif path[-1] in ("kernel", "direction"):
            leaf = leaf.T
        return leaf

    state = {name: np.concatenate([theirs(path) for path in place.paths]) for name, place in places.items()}
    for name in state:
        if name.endswith("weight_g"):
            state[name] = state[name][None, None]
        if name.endswith("extra_tokens"):
            state[name] = state[name][None]
        if name.endswith("alibi_scale"):
            state[name] = state[name][None, None, :, None, None]
    return state


def _same(params, variables):
    ours, theirs = flatten_dict(params), flatten_dict(variables["params"])
    assert ours.keys() == theirs.keys()
    for path in ours:
        np.testing.assert_array_equal(ours[path], theirs[path], err_msg=".".join(path))


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2_stable"])
def test_wav2vec2_round_trip(make_encoder, kind):
    model, variables = make_encoder(kind)
    _same(wav2vec2_params(_state(wav2vec2_places(model), variables), model), variables)


def test_emotion2vec_round_trip(make_encoder, emotion2vec):
    model, state = emotion2vec
    _same(emotion2vec_params(state, model), make_encoder("emotion2vec")[1])
    name = "modality_encoders.AUDIO.alibi_scale"
    _same(emotion2vec_params(state | {name: state[name][0]}, model), make_encoder("emotion2vec")[1])


def test_new_weight_norm_names_are_accepted(make_encoder, wav2vec2):
    model, state = wav2vec2
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("conv.weight_g", "conv.parametrizations.weight.original0")
        renamed[name.replace("conv.weight_v", "conv.parametrizations.weight.original1")] = tensor
    assert renamed.keys() != state.keys()
    _same(wav2vec2_params(renamed, model), make_encoder("wav2vec2")[1])


@pytest.mark.parametrize("prefix", ["", "audio_model.model."])
def test_errors_name_the_tensor(wav2vec2, prefix):
    model, state = wav2vec2
    state = {prefix + name: tensor for name, tensor in state.items()}
    if prefix:
        state["unrelated"] = np.zeros(1)
    name = f"{prefix}encoder.layers.0.final_layer_norm.bias"
    with pytest.raises(UserError, match=f"no tensor '{name}'"):
        wav2vec2_params({key: value for key, value in state.items() if key != name}, model, prefix=prefix)
    with pytest.raises(UserError, match=f"contains '{prefix}stranger', which has no place"):
        wav2vec2_params(state | {f"{prefix}stranger": np.zeros(2)}, model, prefix=prefix)
    with pytest.raises(UserError, match=rf"'{name}' has shape \(11,\).* fit layer_0.mlp_norm.bias"):
        wav2vec2_params(state | {name: np.zeros(11)}, model, prefix=prefix)
    name = f"{prefix}encoder.layers.0.attention.q_proj.weight"
    with pytest.raises(UserError, match=rf"'{name}' has shape \(6, 24\)"):
        wav2vec2_params(state | {name: np.zeros((6, 24))}, model, prefix=prefix)


def test_tensors_that_cannot_be_converted_raise_user_error(emotion2vec):
    model, state = emotion2vec
    for name, bad in (
        ("blocks.0.attn.qkv.weight", np.zeros((10, 12))),
        ("modality_encoders.AUDIO.extra_tokens", np.zeros((2, 3, 12))),
    ):
        with pytest.raises(UserError, match=rf"tensor '{name}' of shape \(.*\) does not fit"):
            emotion2vec_params(state | {name: bad}, model)


def test_wrong_prefix_raises_user_error(wav2vec2):
    model, state = wav2vec2
    with pytest.raises(UserError, match=r"no tensor .* begins with 'speech\.'"):
        wav2vec2_params(state, model, prefix="speech.")


def test_unused_tensors_are_accepted_and_have_a_reason(wav2vec2, emotion2vec):
    model, state = wav2vec2
    wav2vec2_params(state | {"masked_spec_embed": np.zeros(12), "lm_head.weight": np.zeros((3, 12))}, model)
    model, state = emotion2vec
    emotion2vec_params(state | {"modality_encoders.AUDIO.decoder.proj.bias": np.zeros(12)}, model)
    assert all(WAV2VEC2_UNUSED.values()) and all(EMOTION2VEC_UNUSED.values())


def test_every_tensor_of_the_published_encoders_has_a_place_except_the_known_unused(goldens):
    tensors = {name.removeprefix("audio_model.model.") for name, _ in goldens("wav2vec2").tensors}
    places = wav2vec2_places(Wav2Vec2())
    assert tensors - set(places) == {"masked_spec_embed"} and not set(places) - tensors
    tensors = {name for name, _ in goldens("emotion2vec").tensors}
    places = emotion2vec_places(Emotion2Vec())
    assert not set(places) - tensors
    assert {name.split(".blocks")[0].split(".proj")[0] for name in tensors - set(places)} == {
        "modality_encoders.AUDIO.decoder"
    }
