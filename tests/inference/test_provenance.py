"""The exact contents of a motion file: coefficients, codes, and the model and settings that made them."""

import hashlib
import importlib.metadata
import os

import numpy as np
import pytest

from deeptalk_jax.head.basis import EMBEDDED


@pytest.fixture(scope="module")
def clip(babble):
    return babble(1.9)


def test_npz_holds_coefficients_codes_and_their_origin(model, model_directory, clip, tmp_path):
    motion = model.animate(clip, emotion="happy@2", identity=1, seed=3, temperature_bottom=0.5)
    motion.save(tmp_path / "a.b.npz")
    assert os.listdir(tmp_path) == ["a.b.npz"]
    with np.load(tmp_path / "a.b.npz", allow_pickle=False) as saved:
        arrays = dict(saved)
    coefficients = {
        "expression": ((48, 50), "float32"),
        "jaw_pose": ((48, 3), "float32"),
        "fps": ((), "int32"),
        "indices_top": ((12,), "int32"),
        "indices_bottom": ((24,), "int32"),
    }
    assert {name: (arrays[name].shape, arrays[name].dtype.name) for name in coefficients} == coefficients
    for name in coefficients:
        np.testing.assert_array_equal(arrays.pop(name), getattr(motion, name))
    assert tuple(arrays.pop("channel_names")) == motion.channel_names
    index = (model_directory / "model.json").read_bytes()
    assert {name: array[()] for name, array in arrays.items()} == {
        "head": "procedural",
        "model_index_sha256": hashlib.sha256(index).hexdigest(),
        "emotion": "happy@2",
        "identity": "1",
        "seed": 3,
        "temperature_top": 0.0,
        "temperature_bottom": 0.5,
        "top_p": 1.0,
        "alpha": 0.0,
        "version": importlib.metadata.version("deeptalk_jax"),
        "basis": "embedded",
        "basis_version": "1",
        "basis_sha256": EMBEDDED.sha256,
        "blinks": True,
    }
    assert {arrays[name].dtype.kind for name in ("head", "emotion", "identity", "version")} == {"U"}


def test_every_motion_names_its_own_seed_and_source_of_emotion(model, clip):
    first, second = model.animate(clip, num_samples=2, seed=5, alpha=1.0)
    assert (first.provenance.seed, second.provenance.seed) == (5, 6)
    assert (first.provenance.emotion, first.provenance.identity) == ("speech", "mean")
    heard = model.animate(clip, emotion_audio=clip, identity="0:0.5")
    assert (heard.provenance.emotion, heard.provenance.identity) == ("audio ndarray", "0:0.5")
