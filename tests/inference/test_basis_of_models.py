"""Models and motions of different bases are not combined, and files without a record can still be used."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from deeptalk_jax.assembly.model_dir import index_basis, read_index, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import BASIS_ARRAYS, EMBEDDED, PUBLISHED
from deeptalk_jax.head.load import load_head
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.motion import Motion, read_motion
from deeptalk_jax.inference.provenance import NUMBERED_CHANNELS


@pytest.fixture(scope="module")
def flame_file(synthetic_flame_arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "generic_model.pkl"
    path.write_bytes(pickle.dumps(synthetic_flame_arrays))
    return path


@pytest.fixture(scope="module")
def published(model_parts, tmp_path_factory):
    """A model directory as the import of published weights makes it without --head, and without centroids."""
    parts = {name: part._replace(statistics={}) for name, part in model_parts.items()}
    save_model(directory := tmp_path_factory.mktemp("published"), parts, head=None, basis=PUBLISHED)
    return directory


@pytest.fixture(scope="module")
def clip(babble):
    return babble(0.9)


def test_another_head_than_that_of_the_model_is_refused(model_directory, flame_file):
    with pytest.raises(UserError) as raised:
        DeepTalk.load(model_directory, head=str(flame_file))
    start = f"--head={flame_file}: has the basis flame (sha256 "
    assert str(raised.value).startswith(start) and "\n" not in str(raised.value)
    assert f"but the model {model_directory} has the basis embedded 1" in str(raised.value)
    assert DeepTalk.load(model_directory, head="procedural").basis == EMBEDDED


def test_a_model_without_a_head_makes_motions_and_takes_heads_of_its_basis(
    published, flame_file, clip, tmp_path
):
    model = DeepTalk.load(published)
    assert "head not given" in repr(model)
    model.check_formats(["npz"])
    with pytest.raises(UserError, match=r"^the model names no head; import it again with --head=FILE$"):
        load_head(read_index(published)["head"])
    message = "names no head; give one of its basis, flame2020, with --head=FILE"
    with pytest.raises(UserError, match=f"^--formats=mp4: {published} {message}"):
        model.check_formats(["npz", "mp4"])
    motion = model.animate(clip)
    motion.save(tmp_path / "a.npz")
    again = Motion.load(tmp_path / "a.npz")
    assert again.basis == PUBLISHED and again.channel_names == NUMBERED_CHANNELS and again.load_head is None
    with pytest.raises(UserError, match="this motion names no head"):
        again.vertices()
    for show in (lambda: model.head, lambda: DeepTalk.load(published, head="procedural")):
        with pytest.raises(UserError, match=r"names no head|--head=procedural: has the basis embedded 1"):
            show()
    shown = DeepTalk.load(published, head=str(flame_file))
    shown.check_formats(["mp4"])
    assert shown.head.basis.name == "flame"
    on_flame = Motion.load(tmp_path / "a.npz", head=str(flame_file))
    assert on_flame.vertices().shape == (len(motion), shown.head.num_vertices, 3)
    with pytest.raises(
        UserError, match=r"^head procedural: has the basis embedded 1, but the motion has the basis"
    ):
        Motion.load(tmp_path / "a.npz", head="procedural").vertices()


def test_formats_of_emotions_need_centroids(published, model):
    with pytest.raises(UserError, match=r"^--formats=emotions.srt: .*holds no emotion centroids; make them"):
        DeepTalk.load(published).check_formats(["npz", "emotions.srt"])
    model.check_formats(["emotions.json", "mp4"])


def test_infer_refuses_formats_that_the_model_lacks_before_it_starts(published, commands, tmp_path):
    flags = ("--audio=README.md", f"--model={published}", f"--out={tmp_path / 'out'}")
    done = commands.run("infer.py", *flags, "--formats=npz,emotions.json")
    assert done.status == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --formats=emotions.json: ")


def test_a_motion_of_another_basis_is_no_source_of_emotion(model, published, clip, tmp_path):
    DeepTalk.load(published).animate(clip).save(tmp_path / "flame.npz")
    message = r"flame.npz: has the basis flame2020, but the model .* has the basis embedded 1, .*; give a motion of the"
    with pytest.raises(UserError, match=message):
        model.emotion(motion=tmp_path / "flame.npz")
    with pytest.raises(UserError, match=r"^motion: has the basis flame2020"):
        model.emotion(motion=Motion.load(tmp_path / "flame.npz"))
    with np.load(tmp_path / "flame.npz") as file:
        arrays = dict(file)
    arrays["jaw_pose"] /= 100  # random weights turn the jaw by more than pi
    np.savez(tmp_path / "b.npz", **(arrays | {"basis": np.array("")}))
    with pytest.raises(
        UserError, match=r"b.npz: not a motion file of infer.py \(the name of a basis is empty"
    ):
        read_motion(tmp_path / "b.npz")
    for name in BASIS_ARRAYS.values():
        del arrays[name]
    np.savez(tmp_path / "unknown.npz", **arrays)  # trackers record no basis
    model.emotion(motion=tmp_path / "unknown.npz")


def test_files_of_earlier_versions_have_the_basis_of_their_head(model_directory, model, clip, tmp_path):
    index = read_index(model_directory)
    assert index.pop("basis") == EMBEDDED.record()
    (tmp_path / "model.json").write_text(json.dumps(index))
    assert index_basis(read_index(tmp_path)) == EMBEDDED
    (tmp_path / "model.json").write_text(json.dumps(index | {"head": "generic_model.pkl"}))
    assert index_basis(read_index(tmp_path)) is None
    (tmp_path / "model.json").write_text(json.dumps(index | {"basis": "embedded"}))
    with pytest.raises(UserError, match=r"model.json: damaged, not a model index .*the basis is 'embedded'"):
        read_index(tmp_path)
    motion = model.animate(clip)
    old = replace(motion, provenance=replace(motion.provenance, basis=None))
    old.save(tmp_path / "old.npz")
    with np.load(tmp_path / "old.npz") as file:
        assert "basis" not in file
    again = Motion.load(tmp_path / "old.npz")
    assert again.basis == EMBEDDED and again.channel_names == motion.channel_names
    with pytest.raises(UserError, match=r"old.npz: has the basis embedded 1"):
        read_motion(tmp_path / "old.npz", basis=PUBLISHED, of="a model")
