"""Stage 2: terms of the loss, the emotion swap, the exported model and refused configs."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import deeptalk_stage2
from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.stages.deeptalk_stage2 import other_rows
from deeptalk_jax.training.step import loss_with_features, metric_names
from deeptalk_jax.training.trainer import Trainer
from deeptalk_jax.types import Gaussian

STAGE1 = {"vertex", "lips", "lip_gap", "viseme", "codes_top", "codes_bottom"}
LIP_READING, EMOTION = {"lip_reading"}, {"emotion"}
SWAP = {"swap_emotion", "swap_lip", "swap_lip_reading"}


@pytest.fixture(scope="module")
def stage(trained, tiny_config):
    return make_stage(tiny_config("deeptalk_stage2", trained))


@pytest.mark.parametrize(
    ("ablation", "names"),
    [
        ("no_lip_reading", STAGE1 | EMOTION | SWAP - {"swap_lip_reading"}),
        ("stage1_losses", STAGE1),
    ],
)
def test_a_term_without_weight_is_not_computed(trained, tiny_config, ablation, names):
    overrides = deeptalk_stage2.ABLATIONS.get(ablation, {})
    stage = make_stage(
        tiny_config("deeptalk_stage2", trained, **{"loss.motion_emotion_weight": 0.0} | overrides)
    )
    reads = any("lip_reading" in name for name in names)
    assert ("lip_reader" in stage.upstream) == reads
    constants = stage.constants()
    assert ("visual_speech" in constants) == reads
    params = jax.eval_shape(stage.init, jax.random.key(0))["params"]
    found = metric_names(
        loss_with_features(stage), params, {}, constants, stage.batch_shapes(), np.int32(0), jax.random.key(0)
    )
    assert set(found) == names | {"loss", "gradient_norm"}


def test_a_swap_between_equal_clips_changes_nothing(trained, tiny_config):
    """In a batch of copies of one clip, the emotion of another row is the own emotion."""
    config = tiny_config(
        "deeptalk_stage2", trained, emotion_label_rate=0.0
    )  # labels are for a random share of the rows
    trainer = Trainer(make_stage(config), config)
    batch = {name: np.repeat(rows[:1], len(rows), axis=0) for name, rows in next(trainer.iterator).items()}
    values = jax.device_get(trainer.runner.run(trainer.state, trainer.constants, batch)[1])
    terms = STAGE1 | LIP_READING | EMOTION | SWAP | {"motion_emotion"}
    assert set(values) == terms | {"loss", "gradient_norm"}
    for own, swapped in (("emotion",) * 2, ("lip_reading",) * 2, ("lips", "lip")):
        np.testing.assert_allclose(values[f"swap_{swapped}"], values[own], rtol=1e-4)


def test_emotion_and_lip_reading_have_gradients_in_the_motion(stage):
    batch = next(stage.train_batches(num_processes=1, process_index=0))
    batch = {name: values[:2] for name, values in batch.items()}
    batch["num_frames"] = np.full(2, 16, np.int32)
    opened = batch["motion"] + 0.2 * (np.arange(53) == 50).astype(np.float32)

    @jax.jit
    def pull(motion, frozen, batch):
        def emotion(motion):
            shown, true = (
                stage.motion_emotion(frozen, frames, batch["num_frames"])
                for frames in (motion, batch["motion"])
            )
            return stage.consistency(frozen, true, shown)

        def lips(motion):
            motions = {"same": batch["motion"], "opened": motion}
            found = stage.lip_reading_terms(motions, frozen, batch, jax.random.key(1))
            return found["opened"], found["same"]

        return jax.grad(emotion)(motion), jax.value_and_grad(lips, has_aux=True)(motion)

    of_emotion, ((error, none), of_lips) = pull(opened, stage.constants(), batch)
    assert float(none) == pytest.approx(0.0, abs=1e-6), "the true lips differ from each other"
    assert float(error) > 1e-5
    assert np.abs(of_emotion).max(axis=2).min() > 0, "a frame has no gradient of the emotion"
    felt = np.abs(of_lips).max(axis=2) > 0
    assert felt.sum(axis=1).tolist() == [2, 0], "lips are read in two frames of every other window"
    assert np.diff(np.nonzero(felt[0])[0]).tolist() == [1], "frames that are read are neighbours"


def test_an_indivisible_number_of_windows_is_refused(stage):
    batch = {"motion": np.zeros((3, 16, 53), np.float32), "num_frames": np.full(3, 16, np.int32)}
    with pytest.raises(ValueError, match=r"lip_reading_every=2: expected a divisor of the 3 windows"):
        stage.lip_reading_terms({}, stage.constants(), batch, jax.random.key(0))


def test_the_swap_takes_the_emotion_of_another_row():
    rows = np.arange(5.0)[:, None]
    for seed in range(8):
        mean, log_variance = other_rows(Gaussian(rows, 10.0 + rows), jax.random.key(seed))
        assert sorted(mean[:, 0]) == list(rows[:, 0])
        assert not np.any(mean == rows)
        np.testing.assert_array_equal(log_variance, 10.0 + mean)


def test_the_export_animates_and_upstream_parts_are_unchanged(trained):
    directory = trained / "deeptalk_stage2" / "model"
    model = DeepTalk.load(directory)
    motion = model.animate(np.zeros(6400, np.float32))
    assert motion.expression.shape == (10, 50)
    for name in ("fer", "dee", "motion_prior", "lip_reader"):
        source = trained / ("lip_reader" if name == "lip_reader" else "deeptalk") / "model"
        before, after = (load_part(where, name).variables for where in (source, directory))
        jax.tree.map(np.testing.assert_array_equal, before, after)


def test_stage_2_refuses_missing_or_other_upstream_models(trained, tiny_config):
    config = tiny_config("deeptalk_stage2", trained)
    with config.unlocked():
        config.upstream.lip_reader = ""
    with pytest.raises(
        UserError, match=r"'deeptalk_stage2' builds on 'lip_reader': .*upstream.lip_reader=DIR"
    ):
        make_stage(config)
    other = make_stage(tiny_config("deeptalk_stage2", trained, **{"model.predictor_dim": 8}))
    with pytest.raises(UserError, match=r"upstream.deeptalk=.*has shape"):
        other.pretrained_params()
    with pytest.raises(ValueError, match=r"lip_reading_frames=17: expected 0 to data.window_frames=16"):
        make_stage(tiny_config("deeptalk_stage2", trained, **{"loss.lip_reading_frames": 17}))


def test_the_command_in_the_docs_sets_existing_keys():
    text = (Path(__file__).parents[2] / "docs" / "stage2.md").read_text()
    (command,) = re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S)
    given = dict(re.findall(r"--config\.([\w.]+)=(\S+)", command))
    config = deeptalk_stage2.get_config(re.search(r"deeptalk_stage2\.py:(\S+)", command)[1])
    assert given.keys() == {f"upstream.{name}" for name in config.upstream}
