"""`config.init_from`: a run starts from the weights of another run of the same stage."""

import shutil

import jax
import numpy as np
import pytest

from deeptalk_jax.assembly.model_dir import Part, load_part, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages import run
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.stages.precompute import precompute_features
from deeptalk_jax.training.loop import fit
from deeptalk_jax.training.trainer import Trainer


@pytest.fixture
def first(tiny_config, tmp_path):
    """Work directory of a finished FER with weights and batch statistics that no initialisation gives."""
    config = tiny_config("fer")
    variables = jax.tree.map(
        lambda x: np.linspace(0.1, 1, x.size, dtype=np.float32).reshape(x.shape),
        jax.eval_shape(make_stage(config).init, jax.random.key(0)),
    )
    save_model(tmp_path / "first" / "model", {"fer": Part(config, variables)}, head="procedural")
    return tmp_path / "first"


@pytest.mark.parametrize("below", ["", "model"])
def test_training_starts_from_the_weights_of_another_run(first, tiny_config, tmp_path, monkeypatch, below):
    config = tiny_config("fer", num_steps=1, init_from=str(first / below))
    seen = []
    taken = Trainer.next_step
    monkeypatch.setattr(Trainer, "next_step", lambda self: (seen.append(self.variables()), taken(self))[1])
    fit(make_stage(config), config, tmp_path / "second")
    jax.tree.map(np.testing.assert_array_equal, seen[0], load_part(first / "model", "fer").variables)
    shutil.rmtree(first)  # a run that resumes does not need them any more
    longer = tiny_config("fer", num_steps=2, init_from=str(first / below))
    fit(make_stage(longer), longer, tmp_path / "second")
    assert len(seen) == 2
    assert any(jax.tree.leaves(jax.tree.map(lambda x, y: not np.array_equal(x, y), seen[0], seen[1])))


def test_weights_of_other_shapes_and_missing_models_are_refused(first, tiny_config, tmp_path):
    config = tiny_config("fer", init_from=str(first), **{"model.hidden_dims": (9, 11, 10, 8, 7, 6, 4)})
    with pytest.raises(
        UserError, match=r"--config.init_from=.*first: part 'fer': tensor .* has shape .*, expected"
    ):
        run.train(config, tmp_path / "second")
    config = tiny_config("fer", init_from=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"--config.init_from=.*none: .* no model directory"):
        run.train(config, tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_precomputed_features_are_refused(first, tiny_config, tmp_path):
    stage = make_stage(tiny_config("fer", init_from=str(first)))
    with pytest.raises(UserError, match=r"cannot be used with --config\.init_from="):
        precompute_features(stage, tmp_path / "features")
