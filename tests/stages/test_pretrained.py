"""Stages that start from imported weights of a speech encoder."""

import jax
import numpy as np
import pytest

from deeptalk_jax.assembly.model_dir import Part, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.models.speech.emotion2vec import Emotion2Vec
from deeptalk_jax.stages import base
from deeptalk_jax.stages.base import make_stage

TINY = Emotion2Vec(
    num_prenet_layers=1, num_layers=1, dim=8, num_heads=2, mlp_dim=10, conv_channels=6, positional_groups=2
)


@pytest.fixture
def stage(trained, tiny_config):
    """Returns `(directory, kind) -> stage`: a DEE stage with changed config keys and an unchanged module."""

    def make(directory, kind="emotion2vec"):
        made = make_stage(tiny_config("dee", trained))
        with made.config.unlocked():
            made.config.pretrained.speech = str(directory)
            made.config.model.speech.kind = kind
        return made

    return make


@pytest.fixture
def imported(tmp_path, stage, monkeypatch):
    """Writes a model directory with a tiny emotion2vec, which all configs then describe."""
    monkeypatch.setattr(base, "build_speech_encoder", lambda config: TINY)
    shapes = jax.eval_shape(TINY.init, jax.random.key(0), np.zeros((1, 640), np.float32))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    save_model(tmp_path, {"emotion2vec": Part(stage("").config, variables)}, head="procedural")
    return tmp_path, variables


def test_pretrained_weights_come_from_the_directory(imported, stage):
    directory, variables = imported
    given = stage(directory).pretrained_params()
    jax.tree.map(np.testing.assert_array_equal, given, {"speech_encoder": variables["params"]})
    assert stage("", kind="mel").pretrained_params() == {}


def test_directories_without_fitting_weights_are_refused(imported, stage, trained):
    directory, variables = imported
    with pytest.raises(UserError, match=r"--emotion2vec=.* --config.pretrained.speech=DIR"):
        stage("").pretrained_params()
    with pytest.raises(UserError, match=f"{trained}/fer/model: holds no part 'emotion2vec', only: fer"):
        stage(trained / "fer" / "model").pretrained_params()
    with pytest.raises(UserError, match="nowhere: no model directory"):
        stage(directory / "nowhere").pretrained_params()
    with pytest.raises(UserError, match=r"speech=.*: speech.kind='mel' is trained from scratch"):
        stage(directory, kind="mel").pretrained_params()
    del variables["params"]["extra_tokens"]
    save_model(directory, {"emotion2vec": Part(stage("").config, variables)}, head="procedural")
    message = (
        f"--config.pretrained.speech={directory}: part 'emotion2vec': tensor params/extra_tokens is missing"
    )
    with pytest.raises(UserError, match=message):
        stage(directory).pretrained_params()
