"""Loading of wav2vec 2.0: parity with transformers, file formats, the hub, and errors for unusable folders."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy

from deeptalk_jax.errors import UserError
from deeptalk_jax.interop.torch_file import read_torch_file
from deeptalk_jax.interop.wav2vec2_file import load_wav2vec2


@pytest.fixture
def folder(golden_files, tmp_path):
    """A writable copy of the folder of a tiny base model."""
    return shutil.copytree(golden_files / "torch_files" / "wav2vec2_base", tmp_path / "wav2vec2_base")


def edit(path, **changes):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | changes))


@pytest.mark.parametrize("variant", ["base", "large"])
def test_features_equal_transformers(golden_files, variant, jit):
    model, variables = load_wav2vec2(golden_files / "torch_files" / f"wav2vec2_{variant}")
    assert model.stable_layer_norm == (variant == "large")
    expected = np.load(golden_files / "torch_files" / "wav2vec2.npz")
    features = jit(model.apply)(variables, expected["audio"])
    np.testing.assert_allclose(features.values, expected[variant], rtol=1e-4, atol=1e-5)


def test_safetensors_take_precedence_over_bin(folder):
    state = read_torch_file(folder / "pytorch_model.bin")
    safetensors.numpy.save_file(
        {f"wav2vec2.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors"
    )
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    model, variables = load_wav2vec2(folder, resample_to_hz=25.0)
    assert model.rate_hz == 25
    np.testing.assert_array_equal(
        variables["params"]["encoder_norm"]["scale"], state["encoder.layer_norm.weight"]
    )


def test_processor_without_normalisation_disables_it(folder):
    edit(folder / "preprocessor_config.json", do_normalize=False)
    assert load_wav2vec2(folder)[0].waveform_eps is None


@pytest.mark.parametrize(
    "field, value", [("hidden_act", "relu"), ("add_adapter", True), ("feat_extract_activation", "gelu_new")]
)
def test_unsupported_configuration_raises_user_error(folder, field, value):
    edit(folder / "config.json", **{field: value})
    with pytest.raises(UserError, match=f"config.json: {field}={value!r} is not supported"):
        load_wav2vec2(folder)


def test_different_widths_of_convolutions_are_refused(folder):
    edit(folder / "config.json", conv_dim=[10] * 6 + [12])
    with pytest.raises(UserError, match="conv_dim"):
        load_wav2vec2(folder)


def test_error_of_another_size_names_folder_and_tensor(folder):
    edit(folder / "config.json", intermediate_size=48)
    with pytest.raises(UserError, match=r"wav2vec2_base: tensor 'encoder.layers.0.feed_forward.*mlp_in"):
        load_wav2vec2(folder)


@pytest.mark.parametrize("missing", ["config.json", "pytorch_model.bin"])
def test_error_of_a_missing_file_names_it(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=missing):
        load_wav2vec2(folder)


def test_errors_of_damaged_files_name_them_in_one_line(folder):
    (folder / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(UserError, match=r"model.safetensors: the file is damaged"):
        load_wav2vec2(folder)
    for content, message in (
        ("{", "not valid JSON"),
        ("[1]", "contains a list; expected a JSON object"),
        ('{"hidden_size": "wide"}', r"not a valid wav2vec 2.0 configuration \(.*hidden_size"),
        ('{"num_attention_heads": 7}', "num_heads=7 does not divide"),
    ):
        (folder / "config.json").write_text(content)
        (folder / "model.safetensors").unlink(missing_ok=True)
        with pytest.raises(UserError, match=message) as caught:
            load_wav2vec2(folder)
        assert "\n" not in str(caught.value)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(UserError, match=r"config.json: cannot be read \(Is a directory\)"):
        load_wav2vec2(folder)


def test_hub_is_asked_for_safetensors_first(folder, monkeypatch):
    asked = []

    def snapshot(name, allow_patterns):
        asked.append((name, allow_patterns[-1]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    load_wav2vec2("someone/wav2vec2-tiny")
    assert asked == [
        ("someone/wav2vec2-tiny", "model.safetensors"),
        ("someone/wav2vec2-tiny", "pytorch_model.bin"),
    ]


def test_error_of_an_unreachable_hub_is_one_line(monkeypatch):
    def snapshot(*_args, **_kwargs):
        raise ConnectionError("no route to host\nmany more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    with pytest.raises(UserError, match=r"hub failed .*no route to host.*pass a local folder") as caught:
        load_wav2vec2("facebook/wav2vec2-base-960h")
    assert "\n" not in str(caught.value)
