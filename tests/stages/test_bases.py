"""A run whose data, head and upstream models have different bases ends before it writes anything."""

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.registry import METADATA, dataset_basis, find_dataset
from data_pipeline.synthetic_talk.builder import make_builder
from deeptalk_jax.assembly.model_dir import save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import EMBEDDED, PUBLISHED
from deeptalk_jax.interop.published_parts import head_and_basis
from deeptalk_jax.stages import run
from deeptalk_jax.stages.bases import check_bases, check_data_of_model


@pytest.fixture(scope="module")
def flame_file(synthetic_flame_arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "flame2020.pkl"
    path.write_bytes(pickle.dumps(synthetic_flame_arrays))
    return path


def test_a_head_that_does_not_fit_the_data_set_is_refused_before_anything_is_made(
    tiny_config, flame_file, tmp_path
):
    with pytest.raises(UserError) as raised:
        run.train(tiny_config("fer", head=str(flame_file)), tmp_path / "run")
    message = str(raised.value)
    assert message.startswith("data set synthetic_talk in ") and "\n" not in message
    assert (
        f"has the basis embedded 1, but --config.head={flame_file} has the basis flame2020 (sha256" in message
    )
    assert not (tmp_path / "run").exists()


def check(config, basis=EMBEDDED):
    check_bases(config, basis, of="--config.head=HEAD")


def test_models_of_earlier_stages_and_frames_are_checked(tiny_config, tmp_path):
    check(tiny_config("fer"))
    for directory in (tmp_path, tmp_path / "fer"):
        save_model(directory / "model", {}, head=None, basis=PUBLISHED)
    with pytest.raises(
        UserError, match=rf"^--config.init_from={tmp_path}: has the basis flame2020, but --config.head"
    ):
        check(tiny_config("fer", init_from=str(tmp_path)))
    with pytest.raises(
        UserError, match=r"^--config.upstream.fer=.* give a model that was trained for the same head"
    ):
        check(tiny_config("dee", tmp_path))
    check(tiny_config("dee", tmp_path / "absent"))  # whoever loads it reports that
    frames = {"data.frames_file": str(tmp_path / "{split}.npz")}
    np.savez(tmp_path / "train.npz", **PUBLISHED.arrays())
    with pytest.raises(UserError, match=r"^--config.data.frames_file=.* has the basis flame2020"):
        check(tiny_config("fer", **frames))
    np.savez(tmp_path / "train.npz", emotion=np.zeros(3))
    check(tiny_config("fer", **frames))


def test_a_data_set_records_its_basis_and_may_lack_the_record(data_dir, tmp_path):
    assert dataset_basis(data_dir, "synthetic_talk") == EMBEDDED
    save_model(tmp_path / "own", {}, head="procedural")
    save_model(tmp_path / "other", {}, head=None, basis=PUBLISHED)
    directory = find_dataset(data_dir, "synthetic_talk")
    copy = tmp_path / directory.relative_to(data_dir)
    shutil.copytree(directory, copy)
    (copy / METADATA).write_text('{"basis": {"name": 3}}')
    with pytest.raises(UserError, match=rf"^{copy / METADATA}: damaged, not the metadata of a dataset \("):
        dataset_basis(tmp_path, "synthetic_talk")
    (copy / METADATA).unlink()
    assert dataset_basis(tmp_path, "synthetic_talk") == EMBEDDED  # as built before there were records
    builder = make_builder(data_dir=str(tmp_path), num_clips=64, seed=0, num_workers=1)
    assert builder.info.splits["train"].num_examples == 48
    check_data_of_model(tmp_path / "own", tmp_path, "synthetic_talk")
    with pytest.raises(UserError, match=r"^data set synthetic_talk in .*, but the model .*other has"):
        check_data_of_model(tmp_path / "other", tmp_path, "synthetic_talk")
    (tmp_path / "synthetic_talk").rename(tmp_path / "recordings")
    assert dataset_basis(tmp_path, "recordings") is None


def test_published_weights_are_those_of_flame_2020(flame_file, tmp_path):
    def chosen(name, head=None, files=("fer",)):
        return head_and_basis(tmp_path / name, head, files)

    assert chosen("new") == (None, PUBLISHED)
    head, basis = chosen("new", str(flame_file))
    assert head == str(flame_file) and basis.name == "flame2020" and len(basis.sha256) == 64
    with pytest.raises(
        UserError, match=r"^--head=procedural: has the basis embedded 1, but the published weig"
    ):
        chosen("new", "procedural")
    newer = shutil.copy(flame_file, tmp_path / "flame2023.pkl")
    with pytest.raises(UserError, match=r"flame2023 \(sha256 .*; give a file of FLAME 2020"):
        chosen("new", str(newer))
    save_model(tmp_path / "first", {}, head=head, basis=basis)
    assert chosen("first") == (head, basis)
    save_model(tmp_path / "own", {}, head="procedural")
    with pytest.raises(UserError, match=r"^--out=.*own: has the basis embedded 1, .*; choose another --out"):
        chosen("own")
    save_model(tmp_path / "hashed", {}, head=None, basis=replace(PUBLISHED, sha256="a" * 64))
    assert chosen("hashed")[1].sha256 == "a" * 64
    # Encoders alone know no motion.
    encoders = ("wav2vec2", "emotion2vec")
    assert chosen("new", files=encoders) == (None, None)
    assert chosen("new", "procedural", encoders) == chosen("own", files=encoders) == ("procedural", EMBEDDED)
    with pytest.raises(UserError, match=r"flame2020 .*, but --out=.*own has the basis embedded 1"):
        chosen("own", str(flame_file), encoders)
