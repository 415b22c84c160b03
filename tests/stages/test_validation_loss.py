"""The validation loss: the loss of the step on fixed windows of the validation split, next to unchanged training."""

import json

import jax
import numpy as np

from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.stages import run
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.training.state import step_key
from deeptalk_jax.training.step import decode_audio
from deeptalk_jax.training.trainer import Trainer

SETTINGS = {"validate_every_steps": 3, "log_every_steps": 4, "data.validation_batches": 2}


def test_rows_are_written_and_training_is_unchanged(tiny_config, tmp_path):
    run.train(tiny_config("fer", **SETTINGS), tmp_path / "validated")
    run.train(tiny_config("fer"), tmp_path / "plain")
    validated, plain = (load_part(tmp_path / x / "model", "fer").variables for x in ("validated", "plain"))
    jax.tree.map(np.testing.assert_array_equal, validated, plain)
    rows = [json.loads(line) for line in (tmp_path / "validated" / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], "train/loss" in row) for row in rows] == [
        (3, True),
        (3, False),
        (4, True),
        (4, False),
    ]
    assert rows[1].keys() == {"step", "validation/loss", "validation/cross_entropy", "validation/accuracy"}
    assert rows[3]["validation/loss"] != rows[1]["validation/loss"]


def test_the_loss_of_the_average_is_the_mean_over_the_batches(tiny_config):
    stage = make_stage(tiny_config("fer", ema_decay=0.9, **SETTINGS))
    trainer = Trainer(stage, stage.config)
    for _ in range(2):
        trainer.next_step()
    state = jax.device_get(trainer.state)
    found = trainer.validation_loss()
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(trainer.state), state)
    batches = stage.validation_batches(2, num_processes=1, process_index=0)
    params, constants = trainer.variables()["params"], stage.constants()

    @jax.jit
    def loss(batch):
        batch = decode_audio(batch)
        return stage.loss_fn(
            params, state.model_state, constants, batch, state.step, step_key(0, state.step)
        )[0]

    losses = [loss(batch) for batch in batches]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(found["loss"], np.mean(losses), rtol=1e-5)


def test_processes_share_the_rows_of_the_validation_split(tiny_config, data_dir):
    stage = make_stage(tiny_config("fer"))
    (whole,) = stage.validation_batches(1, num_processes=1, process_index=0)
    parts = [stage.validation_batches(1, num_processes=2, process_index=i)[0]["motion"] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole["motion"])
    training = next(stage.train_batches(num_processes=1, process_index=0))
    assert not set(whole["speaker"]) & set(training["speaker"])


def test_a_data_set_without_a_validation_split_trains_and_says_so(tiny_config, tmp_path, caplog):
    config = tiny_config("fer", **SETTINGS, **{"data.frames_file": str(tmp_path / "{split}.npz")})
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "train.npz",
        expression=rng.standard_normal((16, 50)).astype(np.float32),
        jaw_pose=rng.standard_normal((16, 3)).astype(np.float32),
        emotion=np.arange(16) % 8,
    )
    with caplog.at_level("WARNING"):
        run.train(config, tmp_path / "run")
    assert "no validation loss: " in caplog.text and "validation.npz" in caplog.text
    assert (tmp_path / "run" / "model" / "model.json").exists()
