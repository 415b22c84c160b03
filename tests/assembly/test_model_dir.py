"""Model directories: round trip, damaged files, statistics and several parts."""

import json
import os
import tempfile

import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors import SafetensorError

from deeptalk_jax.assembly.model_dir import (
    Part,
    check_variables,
    load_part,
    read_index,
    save_model,
    save_statistics,
)
from deeptalk_jax.errors import UserError


@pytest.fixture
def model(tmp_path):
    variables = {"params": {"dense": {"kernel": np.arange(6.0).reshape(2, 3)}, "scale": np.float32(2)}}
    part = Part(ConfigDict({"stage": "fer", "sizes": (1, 2)}), variables)
    save_model(tmp_path / "model", {"fer": part}, head="procedural")
    return tmp_path / "model"


def test_round_trip(model):
    part = load_part(model, "fer")
    assert part.config.sizes == [1, 2]
    np.testing.assert_array_equal(part.variables["params"]["dense"]["kernel"], np.arange(6.0).reshape(2, 3))
    assert part.variables["params"]["scale"].shape == ()
    assert read_index(model)["head"] == "procedural"
    assert sorted(path.name for path in model.iterdir()) == ["fer.safetensors", "model.json"]


def change_index(model, **changes):
    path = model / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_damaged_directories_are_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"no model directory \(it holds no model.json\)"):
        read_index(tmp_path)
    with pytest.raises(UserError, match="holds no part 'dee', only: fer"):
        load_part(model, "dee")
    weights = model / "fer.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"fer.safetensors: weights missing or damaged"):
        load_part(model, "fer")
    weights.unlink()
    with pytest.raises(UserError, match=r"fer.safetensors: weights missing or damaged"):
        load_part(model, "fer")
    change_index(model, format_version=9)
    with pytest.raises(UserError, match="format version 9; this program reads version 3"):
        read_index(model)
    change_index(model, format="gltf")
    with pytest.raises(UserError, match="not a 'deeptalk_jax model' index"):
        read_index(model)
    (model / "model.json").write_text("{")
    with pytest.raises(UserError, match=r"model.json: damaged, not a model index"):
        read_index(model)


def test_an_index_cannot_refer_to_files_outside_the_directory(model, tmp_path):
    (tmp_path / "secret.safetensors").write_bytes((model / "fer.safetensors").read_bytes())
    change_index(model, parts={"fer": {"config": {}, "weights": "../secret.safetensors"}})
    with pytest.raises(UserError, match=r"model/secret.safetensors: weights missing"):
        load_part(model, "fer")


@pytest.mark.parametrize(
    ("have", "message"),
    [
        ({"a": np.zeros(2)}, "part 'dee': tensor b is missing"),
        ({"a": np.zeros(2), "b": np.zeros(3), "c": np.zeros(1)}, "tensor c is unknown to the model"),
        ({"a": np.zeros(2), "b": np.zeros(4)}, r"tensor b has shape \(4,\), expected \(3,\)"),
    ],
)
def test_names_and_shapes_of_tensors_are_checked(have, message):
    with pytest.raises(UserError, match=message):
        check_variables("dee", have, {"a": np.zeros(2), "b": np.zeros(3)})


def test_other_parts_are_kept_or_removed(model):
    part = Part(ConfigDict({"stage": "dee"}), {"params": {"shift": np.float32(5)}})
    save_model(model, {"dee": part}, head="flame.pkl", keep_others=True)
    assert sorted(read_index(model)["parts"]) == ["dee", "fer"] and read_index(model)["head"] == "flame.pkl"
    assert load_part(model, "fer").config.stage == "fer"
    save_model(model, {"dee": part}, head="flame.pkl")
    assert list(read_index(model)["parts"]) == ["dee"]


def test_statistics(model, tmp_path):
    assert load_part(model, "fer").statistics == {}
    weights = (model / "fer.safetensors").read_bytes()
    save_statistics(model, "fer", {"mean": np.arange(6.0, dtype=np.float32).reshape(3, 2).T})
    part = load_part(model, "fer")
    np.testing.assert_array_equal(part.statistics["mean"], [[0, 2, 4], [1, 3, 5]])
    assert (model / "fer.safetensors").read_bytes() == weights
    # Statistics are saved with their part, and removed when another part takes its place.
    save_model(tmp_path / "later", {"fer": part}, head="procedural")
    assert load_part(tmp_path / "later", "fer").statistics["mean"].dtype == np.float32
    save_model(tmp_path / "later", {"fer": part._replace(statistics={})}, head="procedural")
    assert load_part(tmp_path / "later", "fer").statistics == {}
    with pytest.raises(UserError, match="holds no part 'dee', only: fer"):
        save_statistics(model, "dee", {"mean": np.zeros(1)})
    (model / "fer.statistics.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"fer.statistics.safetensors: statistics missing or damaged"):
        load_part(model, "fer")
    (model / "fer.statistics.safetensors").unlink()
    (model / "fer.statistics.safetensors").mkdir()
    with pytest.raises(UserError, match="cannot write the model directory"):
        save_statistics(model, "fer", {"mean": np.zeros(1)})


def test_a_directory_without_write_access_is_refused(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the model directory"):
        save_model(tmp_path / "file" / "model", {}, head="procedural")

    def full(*_):  # safetensors does not raise an OSError
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("deeptalk_jax.assembly.model_dir.save_file", full)
    part = Part(ConfigDict(), {"params": {"shift": np.float32(5)}})
    with pytest.raises(UserError, match=r"cannot write the model directory .*No space left"):
        save_model(model, {"dee": part}, head="procedural")
    assert not list(model.glob(".*"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_files_have_the_mode_of_the_umask(model_parts, tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        save_model(tmp_path / "model", model_parts, head="procedural")
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "model").iterdir()} == {mode}


@pytest.mark.parametrize("name", ["fer.safetensors", "model.json"])
def test_a_file_that_may_not_be_read_is_told_as_such(model_parts, name):
    with tempfile.TemporaryDirectory() as directory:  # pytest's own directories are closed to other users
        os.chmod(directory, 0o755)
        save_model(directory, {"fer": model_parts["fer"]}, head="procedural")
        os.chmod(f"{directory}/{name}", 0)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may read everything
        try:
            with pytest.raises(
                UserError, match=rf"{name}: permission denied; make the file readable \(chmod\)"
            ):
                load_part(directory, "fer")
        finally:
            os.seteuid(user)
