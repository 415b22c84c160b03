"""A run is what it computes: moved files resume, other files are refused, and a run may become longer."""

import json
import os
import shutil

import numpy as np
import pytest

from deeptalk_jax.assembly.model_dir import load_part, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages import run
from deeptalk_jax.stages.inputs import check_run, input_digests
from deeptalk_jax.training.workdir import claim_workdir


def changed(config, **values):
    config = config.copy_and_resolve_references().unlock()
    config.update_from_flattened_dict(values)
    return config.lock()


@pytest.fixture
def data(data_dir, tmp_path):
    """A private copy of the shared corpus."""
    return shutil.copytree(data_dir, tmp_path / "scratch1")


def claim(workdir, config):
    claim_workdir(workdir, config, input_digests(config))


def test_moved_data_and_other_spellings_are_the_same_run(tiny_config, data, tmp_path, monkeypatch):
    config = tiny_config("fer", **{"data.data_dir": str(data)})
    claim(tmp_path / "run", config)
    monkeypatch.chdir(tmp_path)
    for spelling in ("scratch1", "./scratch1", "scratch1/", f"{tmp_path}/run/../scratch1"):
        claim(tmp_path / "run", changed(config, **{"data.data_dir": spelling}))
    moved = changed(config, **{"data.data_dir": str(data.rename(tmp_path / "scratch2"))})
    check_run(tmp_path / "run", moved)
    claim(tmp_path / "run", moved)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored == json.loads(moved.to_json_best_effort())
    name = changed(moved, **{"data.dataset": "synthetic_talk/clips64_seed0"})
    claim(tmp_path / "run", name)


@pytest.mark.parametrize("at_the_same_path", [True, False])
def test_other_records_are_refused(tiny_config, data, tmp_path, at_the_same_path):
    config = tiny_config("fer", **{"data.data_dir": str(data)})
    claim(tmp_path / "run", config)
    if not at_the_same_path:
        data = shutil.copytree(data, tmp_path / "scratch2")
        config = changed(config, **{"data.data_dir": str(data)})
    (shard,) = data.rglob("*train.array_record*")
    content = bytearray(shard.read_bytes())
    content[70_000] ^= 1
    shard.write_bytes(content)
    differs = "the files of data" if at_the_same_path else "data.data_dir"
    with pytest.raises(
        UserError, match=rf"begun with another config \(differs in: ({differs})\); give another"
    ):
        claim(tmp_path / "run", config)
    if not at_the_same_path:
        with pytest.raises(UserError, match=r"differs in: data.data_dir\)"):
            check_run(tmp_path / "run", config)


def test_moved_upstream_models_are_the_same_run_and_other_weights_are_not(trained, tiny_config, tmp_path):
    config = tiny_config("dee", trained)
    claim(tmp_path / "run", config)
    # The model of the generator contains the same FER as that of FER alone.
    for model in (shutil.copytree(trained / "fer" / "model", tmp_path / "fer"), trained / "dee" / "model"):
        claim(tmp_path / "run", changed(config, **{"upstream.fer": str(model)}))
    part = load_part(tmp_path / "fer", "fer")
    part.variables["params"]["dense_0"]["bias"] += 1
    save_model(tmp_path / "fer", {"fer": part}, head="procedural")
    with pytest.raises(UserError, match=r"differs in: upstream.fer\)"):
        claim(tmp_path / "run", changed(config, **{"upstream.fer": str(tmp_path / "fer")}))


def test_a_copied_folder_of_runs_is_finished(trained, tiny_config, tmp_path):
    for name in ("fer", "dee"):
        shutil.copytree(trained / name, tmp_path / name)
    index = tmp_path / "dee" / "model" / "model.json"
    before = index.stat().st_mtime_ns
    run.train(tiny_config("dee", tmp_path), tmp_path / "dee")
    assert index.stat().st_mtime_ns == before


def test_a_work_directory_without_digests_resumes_at_the_same_paths(tiny_config, tmp_path, monkeypatch):
    """Earlier versions wrote no `inputs.json` and had no key `init_from`."""
    config = tiny_config("fer")
    before = json.loads(config.to_json_best_effort())
    before.pop("init_from", None)
    (tmp_path / "config.json").write_text(json.dumps(before))
    monkeypatch.chdir(config.data.data_dir)
    claim(tmp_path, changed(config, **{"data.data_dir": f"./{os.curdir}"}))
    assert json.loads((tmp_path / "inputs.json").read_text()) == input_digests(config)
    (tmp_path / "inputs.json").unlink()
    with pytest.raises(UserError, match=r"differs in: data.data_dir\)"):
        claim(tmp_path, changed(config, **{"data.data_dir": str(tmp_path)}))


def test_a_finished_run_continues_to_more_steps(tiny_config, tmp_path, capfd):
    schedule = {"optimiser.schedule": "constant"}
    run.train(tiny_config("fer", num_steps=2, **schedule), tmp_path / "grown")
    run.train(tiny_config("fer", num_steps=4, **schedule), tmp_path / "grown")
    assert "fer: num_steps grows from 2 to 4\n" in capfd.readouterr().out
    run.train(tiny_config("fer", num_steps=4, **schedule), tmp_path / "whole")
    grown, whole = (load_part(tmp_path / name / "model", "fer") for name in ("grown", "whole"))
    np.testing.assert_array_equal(
        grown.variables["params"]["dense_0"]["kernel"], whole.variables["params"]["dense_0"]["kernel"]
    )
    assert grown.config.num_steps == 4
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "grown" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4]
    with pytest.raises(UserError, match=r"differs in: num_steps\)"):
        run.train(tiny_config("fer", num_steps=3, **schedule), tmp_path / "grown")
    shutil.rmtree(tmp_path / "grown" / "checkpoints")
    with pytest.raises(
        UserError, match="its 4 steps cannot be continued to num_steps=5, because it has no check"
    ):
        run.train(tiny_config("fer", num_steps=5, **schedule), tmp_path / "grown")
