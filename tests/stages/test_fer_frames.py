"""FER on a file of labelled single frames."""

import json

import numpy as np
import pytest

from configs import fer
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages import run
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.types import EMOTIONS


def write_frames(path, labels):
    """Writes frames with one expression coefficient per emotion."""
    expression = 3 * np.eye(50, dtype=np.float32)[labels]
    np.savez(path, exp=expression, pose=np.zeros((len(labels), 6), np.float32), label=np.array(labels))


@pytest.fixture
def config(tmp_path):
    config = fer.get_config("variant=mini").unlock()
    config.num_steps, config.checkpoint_every_steps, config.log_every_steps = 60, 60, 20
    config.num_devices = 1
    config.model.hidden_dims = (9, 16)
    config.model.feature_layer = 1
    config.model.dropout_rate = 0.0
    config.optimiser.learning_rate = 3e-2
    config.data.batch_size = 16
    config.data.num_threads = 0
    config.data.frames_file = str(tmp_path / "frames_{split}.npz")
    config.data.frames_keys = {"expression": "exp", "jaw_pose": "pose", "emotion": "label"}
    # Half of the frames are neutral.
    write_frames(tmp_path / "frames_train.npz", [*range(8), *[0] * 7] * 2)
    write_frames(tmp_path / "frames_test.npz", [0, 0, 0, 1, 2, 6])
    return config.lock()


def test_trains_and_evaluates_on_the_file(config, tmp_path):
    run.train(config, tmp_path / "fer")
    metrics = run.evaluate(config, tmp_path / "fer", "test")
    assert metrics["frame_accuracy"] > 0.6
    assert "clip_accuracy" not in metrics
    present = {name.removesuffix("_accuracy") for name in metrics if name.endswith("_accuracy")}
    assert present & set(EMOTIONS) == {"neutral", "happy", "sad", "angry"}
    details = json.loads((tmp_path / "fer" / "eval" / "fer_test.json").read_text())
    np.testing.assert_array_equal(np.sum(details["confusion_frames"], axis=1), [3, 1, 1, 0, 0, 0, 1, 0])
    assert "confusion_clips" not in details
    assert (tmp_path / "fer" / "eval" / "fer_test_confusion.png").exists()


def test_class_weights_come_from_the_file(config, tmp_path):
    stage = make_stage(config)
    weights = stage.constants()["class_weights"]
    np.testing.assert_allclose(weights, 30 / (8 * np.array([16] + [2] * 7)))
    shapes = stage.batch_shapes()
    batch = next(stage.train_batches(num_processes=1, process_index=0))
    assert {name: (x.shape, x.dtype) for name, x in batch.items()} == {
        name: (x.shape, x.dtype) for name, x in shapes.items()
    }
    write_frames(tmp_path / "frames_train.npz", [0, 1, 2, 3, 4, 6])
    with pytest.raises(UserError, match=r"frames_{split}.npz: no training frame shows disgusted, contempt"):
        make_stage(config).constants()
