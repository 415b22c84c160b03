"""The importer of published checkpoints: tensor coverage, recognition of files, errors, and the command."""

import fnmatch
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.model_dir import Part, load_part, read_index, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import PUBLISHED
from deeptalk_jax.interop import published_files, published_parts, wav2vec2_file
from deeptalk_jax.interop.published_files import first_difference, read_published
from deeptalk_jax.interop.published_names import (
    AUDIO_TOWER_COPY,
    DEE_COPY,
    DEE_UNUSED,
    EMOTION2VEC_PREFIX,
    FER_UNUSED,
    GENERATOR_UNUSED,
    PRIOR_COPY,
    PRIOR_UNUSED,
    WAV2VEC2_PREFIX,
    dee_places,
    fer_places,
    predictor_places,
    prior_places,
)
from deeptalk_jax.interop.published_parts import (
    CONFIGS_FILE,
    dee_part,
    encoder_part,
    fer_part,
    import_published,
    prior_part,
    published_config,
    split_generator,
)
from tests.goldens.make_published_configs import published_configs

GOLDENS = Path(__file__).parents[1] / "goldens"
COMMAND = "deeptalk_jax.tools.import_published"


@pytest.fixture(scope="module")
def shapes():
    """Tensor shapes of the published checkpoints: file -> tensor name -> shape."""
    return json.loads((GOLDENS / "published.json").read_text())["tensors"]


@pytest.fixture(scope="module")
def states(shapes, pseudo):
    """Pseudo-random tensors of the two small checkpoints."""
    return {
        name: pseudo.pseudo_state(
            [(key, shape, "int64" if "tracked" in key else "float32") for key, shape in shapes[name].items()]
        )
        for name in ("FER.pth", "TH-VQVAE.pth")
    }


@pytest.fixture(scope="module")
def files(states, torch_writer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: torch_writer(folder / name, state) for name, state in states.items()}


def test_every_published_tensor_has_a_place_or_is_listed_as_unused(shapes):
    models = {
        "FER.pth": (fer_places(build.build_fer(published_config("fer"))), FER_UNUSED),
        "DEE.pt": (dee_places(build.build_dee(published_config("dee"))), DEE_UNUSED),
        "TH-VQVAE.pth": (prior_places(), PRIOR_UNUSED),
        "DEEPTalk.pth": (
            predictor_places(
                build.build_generator(published_config("deeptalk"), published_config("motion_prior"))
            ),
            GENERATOR_UNUSED,
        ),
    }
    for file, (places, unused) in models.items():
        names = {
            name for name in shapes[file] if not name.startswith((PRIOR_COPY, DEE_COPY, AUDIO_TOWER_COPY))
        }
        assert not set(places) - names, file
        for name in names - set(places):
            assert any(fnmatch.fnmatchcase(name, pattern) for pattern in unused), name
        for name in set(places):
            assert not any(fnmatch.fnmatchcase(name, pattern) for pattern in unused), name
        assert all(unused.values())
    # The copies in DEEPTalk.pth have the tensors of the parts' own files.
    copies = shapes["DEEPTalk.pth"]
    for prefix, file in ((DEE_COPY, "DEE.pt"), (PRIOR_COPY, "TH-VQVAE.pth")):
        copy = {name.removeprefix(prefix): shape for name, shape in copies.items() if name.startswith(prefix)}
        assert copy == shapes[file]


def test_published_configs_agree_with_the_folder_configs():
    stored = json.loads(CONFIGS_FILE.read_text())
    today = flatten_dict(published_configs(), sep=".")
    for key, value in flatten_dict(stored, sep=".").items():
        assert key in today and today[key] == value, f"{key}: see tests/goldens/make_published_configs.py"


def test_published_configs_select_the_published_behaviour():
    assert published_config("fer").model.feature_path == "published"
    assert published_config("motion_prior").model.ema_smoothing == "published"
    assert published_config("deeptalk").model.speech.rounding == "published"
    assert published_config("deeptalk").inference.to_dict() == {
        "emotion_windows": "first_10s",
        "waveform_padding": "published",
        "max_window_s": 48.0,
        "alpha_mode": "log_variance",
    }


def test_command_writes_a_model_directory(commands, files, states, tmp_path):
    flags = [f"--fer={files['FER.pth']}", f"--prior={files['TH-VQVAE.pth']}", f"--out={tmp_path / 'model'}"]
    # The directory already has a DEE part, which is kept, and a FER part, which is replaced.
    small = Part(ConfigDict(), {"params": {"shift": np.float32(5)}})
    save_model(tmp_path / "model", {"dee": small, "fer": small}, head=None)
    result = commands.run(COMMAND, *flags)
    assert result.status == 0 and not result.stderr
    assert "fer              1,374,024 parameters  from" in result.stdout
    index = read_index(tmp_path / "model")
    assert list(index["parts"]) == ["dee", "fer", "motion_prior"]
    assert index["basis"] == PUBLISHED.record() and index["head"] is None
    for name, part in (
        ("fer", fer_part(states["FER.pth"])),
        ("motion_prior", prior_part(states["TH-VQVAE.pth"])),
    ):
        stored = load_part(tmp_path / "model", name)
        jax.tree.map(np.testing.assert_array_equal, stored.variables, part.variables)
        assert stored.config.variant == "base"
    # With zero updates, the first training batch would replace the imported codes.
    assert stored.variables["codebook"]["quantizer_top"]["updates"] == 1


def test_command_reports_a_wrong_file_in_one_line(commands, files, tmp_path):
    result = commands.run(COMMAND, f"--dee={files['FER.pth']}", f"--out={tmp_path}")
    assert result.status == 2 and len(result.stderr.splitlines()) == 1
    assert "a file like FER.pth" in result.stderr and "pass it as --fer" in result.stderr
    assert not list(tmp_path.iterdir())


def test_files_are_recognised_by_their_tensors(files, torch_writer, tmp_path):
    assert read_published(files["FER.pth"], "fer").keys()
    with pytest.raises(
        UserError, match=r"a file like TH-VQVAE.pth \(it contains .*expected a file like DEEPTalk.pth"
    ):
        read_published(files["TH-VQVAE.pth"], "generator")
    stranger = torch_writer(tmp_path / "stranger.pth", {"layer": {"weight": np.ones((2, 3), np.float32)}})
    with pytest.raises(UserError, match=r"none of the published files .*'layer.weight'.* like FER.pth"):
        read_published(stranger, "fer")


def test_state_dict_may_be_nested_but_other_tensors_are_refused(states, torch_writer, tmp_path):
    state = states["FER.pth"]
    wrapped = torch_writer(tmp_path / "wrapped.pth", {"state_dict": state, "epoch": 3})
    assert read_published(wrapped, "fer").keys() == state.keys()
    beside = torch_writer(tmp_path / "beside.pth", {"state_dict": state, "momentum": np.ones(2, np.float32)})
    with pytest.raises(UserError, match=r"tensor 'momentum' outside the weights in 'state_dict\.'"):
        read_published(beside, "fer")
    training = {"model": state, "last_optimizer_state": {"step": np.ones(2, np.float32)}}
    assert read_published(torch_writer(tmp_path / "f.pt", training), "fer").keys() == state.keys()


def test_errors_of_damaged_files_name_flag_and_file(files, tmp_path):
    short = tmp_path / "short.pth"
    short.write_bytes(files["FER.pth"].read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"--fer=.*short.pth: the file is truncated or damaged"):
        import_published({"fer": short})
    with pytest.raises(UserError, match=r"--prior=.*nothing.pth: no such file"):
        import_published({"prior": tmp_path / "nothing.pth"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_layers.2.bias": None}, "no tensor 'hidden_layers.2.bias', which params.dense_3.bias needs"),
        ({"extra.weight": np.ones(3, np.float32)}, "contains 'extra.weight', which has no place"),
        ({"out_fc.bias": np.ones(7, np.float32)}, r"'out_fc.bias' has shape \(7,\), which does not fit"),
        (
            {"out_fc.bias": np.full(8, np.nan, np.float32)},
            "'out_fc.bias' contains numbers that are not finite",
        ),
        ({"out_fc.bias": np.ones(8, np.int64)}, "'out_fc.bias' has type int64; expected a float type"),
    ],
)
def test_missing_extra_and_invalid_tensors_raise_user_error(states, change, message):
    state = {**states["FER.pth"], **change}
    with pytest.raises(UserError, match=message):
        fer_part({name: tensor for name, tensor in state.items() if tensor is not None})


def test_half_precision_tensors_become_float32(states):
    half = {name: tensor.astype(np.float16) for name, tensor in states["FER.pth"].items()}
    kernel = fer_part(half).variables["params"]["classifier"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, half["out_fc.weight"].T.astype(np.float32))


def test_stored_positional_encoding_must_equal_the_computed_one(shapes):
    # The arrays are views of one number and take no memory.
    state = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes["DEE.pt"].items()}
    with pytest.raises(UserError, match=r"audio_pos_encoder.pos_enc.*expected sinusoidal positions"):
        dee_part(state)


def generator_state(shapes, **changes):
    state = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes["DEEPTalk.pth"].items()}
    return state | changes


def test_split_generator_compares_the_copies_of_the_audio_tower(shapes):
    state = generator_state(shapes)
    own, dee, prior, warnings = split_generator(state)
    assert dee.keys() == shapes["DEE.pt"].keys() and prior.keys() == shapes["TH-VQVAE.pth"].keys()
    assert not warnings and "sequence_encoder.linear.bias" in own

    name = "std_feature_map.bias"
    changed = np.full(128, 0.75, np.float32)
    _, dee, _, warnings = split_generator({**state, AUDIO_TOWER_COPY + name: changed})
    assert len(warnings) == 1 and f"audio_encoder.{name}" in warnings[0] and "0.25" in warnings[0]
    np.testing.assert_array_equal(dee[f"audio_encoder.{name}"], changed)

    del state[AUDIO_TOWER_COPY + name]
    with pytest.raises(UserError, match=r"'std_feature_map\.bias' does not"):
        split_generator(state)
    without = {key: tensor for key, tensor in state.items() if not key.startswith(PRIOR_COPY)}
    with pytest.raises(UserError, match=r"begins with 'sequence_decoder\.motion_prior\.'"):
        split_generator(without)


def test_difference_between_a_file_and_its_copy_is_a_warning(files, states, monkeypatch):
    copy = dict(states["TH-VQVAE.pth"])
    monkeypatch.setattr(published_parts, "_add_generator", lambda *_: {"motion_prior": copy})
    paths = {"generator": Path("DEEPTalk.pth"), "prior": files["TH-VQVAE.pth"]}
    assert not import_published(paths).warnings
    name = "quantize_b.codebook.weight"
    copy[name] = copy[name] + np.float32(0.5)
    (warning,) = import_published(paths).warnings
    assert f"first in {name} by up to 0.5 (tensors that differ: 1)" in warning


def test_first_difference_reports_values_shapes_and_missing_tensors():
    one = {"a": np.zeros(2), "b": np.array([1.0, 5.0]), "c": np.zeros(3)}
    assert first_difference(one, dict(one)) is None
    assert first_difference(one, {**one, "b": np.array([1.0, 3.0]), "c": np.zeros(4)}) == ("b", 2.0, 2)
    assert first_difference(one, {**one, "d": np.zeros(1)}) == ("d", float("inf"), 1)


def test_stand_alone_encoders_must_have_the_published_size():
    folder = GOLDENS / "torch_files" / "wav2vec2_base"
    with pytest.raises(UserError, match=r"--wav2vec2=.*part 'wav2vec2': tensor params/.* has shape"):
        import_published({"wav2vec2": folder})
    with pytest.raises(UserError, match=r"--wav2vec2=.*pytorch_model.bin: .*no tensor 'encoder.layers.2"):
        import_published({"wav2vec2": folder / "pytorch_model.bin"})


def test_stand_alone_encoders_become_parts(shapes, monkeypatch, tmp_path):
    def tensors(file, prefix):
        names = {name: shape for name, shape in shapes[file].items() if name.startswith(prefix)}
        return {
            name.removeprefix(prefix): np.broadcast_to(np.float32(0.5), shape)
            for name, shape in names.items()
        }

    path = tmp_path / "encoder.bin"
    path.write_bytes(b"")
    wav2vec2, emotion2vec = tensors("DEEPTalk.pth", WAV2VEC2_PREFIX), tensors("DEE.pt", EMOTION2VEC_PREFIX)
    monkeypatch.setattr(wav2vec2_file, "read_torch_file", lambda _: wav2vec2)
    monkeypatch.setattr(published_files, "read_torch_file", lambda _: emotion2vec)
    parts = {kind: encoder_part(kind, path) for kind in ("wav2vec2", "emotion2vec")}
    sizes = {kind: sum(leaf.size for leaf in jax.tree.leaves(part.variables)) for kind, part in parts.items()}
    # All parameters except those that only the training uses: the mask vector and the decoder.
    assert sizes == {"wav2vec2": 94_371_712 - 768, "emotion2vec": 93_790_988 - 619_776}
    assert parts["wav2vec2"].config.kind == "wav2vec2" and parts["wav2vec2"].config.rate_hz == 25


def test_difference_between_a_stand_alone_encoder_and_the_generators_is_a_warning(monkeypatch):
    copy, given = np.zeros(3), np.array([0.0, 0.25, 0.0])

    def add_generator(imported, _):
        imported.parts["deeptalk"] = Part(None, {"params": {"speech_encoder": {"norm": {"bias": copy}}}})
        return {}

    monkeypatch.setattr(published_parts, "_add_generator", add_generator)
    monkeypatch.setattr(
        published_parts, "encoder_part", lambda *_: Part(None, {"params": {"norm": {"bias": given}}})
    )
    files = {"generator": Path("DEEPTalk.pth"), "wav2vec2": Path("w.bin")}
    (warning,) = import_published(files).warnings
    assert "the encoder in DEEPTalk.pth, first in norm.bias by up to 0.25" in warning
    given[:] = 0.0
    assert not import_published(files).warnings
