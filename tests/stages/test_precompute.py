"""Precomputed features of frozen networks: training with them equals training without them."""

import jax
import numpy as np
import pytest

from data_pipeline import loader
from data_pipeline.loader import assemble
from data_pipeline.window_features import INDEX
from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.errors import UserError
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.stages.precompute import precompute_features
from deeptalk_jax.stages.run import train

# What DEE hears in a whole clip is a constant of training; the emotion of a window is a feature of the window.
FIXED = {"data.windows_per_clip": 2, "emotion_context": "window"}
FROZEN = {"optimiser.frozen": ("speech_encoder/*",), "model.speech.dropout_rate": 0.5}


def test_cached_training_equals_uncached_training(trained, tiny_config, tmp_path, monkeypatch):
    """With a frozen encoder: it has no dropout, and with precomputed features the step does not use the audio."""
    config = tiny_config("deeptalk", trained, **FIXED, **FROZEN)
    stage = make_stage(config)
    weights = jax.device_get({"speech_encoder": stage.init(jax.random.key(3))["params"]["speech_encoder"]})
    monkeypatch.setattr(type(stage), "pretrained_params", lambda stage: weights)
    models = [train(config, tmp_path / "without")]
    precompute_features(stage, tmp_path / "features")

    def silent(*arguments, **keywords):
        batch = assemble(*arguments, **keywords)
        return batch | {"audio": np.zeros_like(batch["audio"])}

    monkeypatch.setattr(loader, "assemble", silent)
    models.append(train(config, tmp_path / "with", features_dir=tmp_path / "features"))
    without, cached = (load_part(model, "deeptalk").variables["params"] for model in models)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), cached, without)
    jax.tree.map(np.testing.assert_array_equal, cached["speech_encoder"], weights["speech_encoder"])


def test_files_are_written_once_and_belong_to_one_config(trained, tiny_config, tmp_path):
    config = tiny_config("deeptalk", trained, **FIXED)
    assert not make_stage(config).encoder_is_frozen
    stage, index = make_stage(config), tmp_path / INDEX
    precompute_features(stage, tmp_path)
    written = index.stat().st_mtime_ns
    assert len(precompute_features(stage, tmp_path)) == 2 * 48
    assert index.stat().st_mtime_ns == written, "existing files were written again"
    with pytest.raises(UserError, match=r"differs in: seed"):
        precompute_features(make_stage(tiny_config("deeptalk", trained, seed=1, **FIXED)), tmp_path)
    next(tmp_path.glob("*.array_record")).unlink()
    with pytest.raises(UserError, match=r"features-00000-of-00001.array_record is missing"):
        precompute_features(stage, tmp_path)


def test_batches_contain_the_features_of_their_own_windows(trained, tiny_config, tmp_path):
    stage = make_stage(tiny_config("deeptalk", trained, **FIXED))
    window_features = precompute_features(stage, tmp_path)
    batches = stage.train_batches(num_processes=1, process_index=0, window_features=window_features)
    batch = [next(batches) for _ in range(7)][-1]  # of the second epoch
    assert {"dee_mean", "dee_log_variance"} < set(batch) and "encoded_speech" not in batch
    sound = {name: batch[name] for name in ("num_samples", "motion")}
    sound["audio"] = batch["audio"].astype(np.float32) / 32_768
    expected = jax.jit(stage.speech_emotion)(stage.constants(), sound)
    np.testing.assert_allclose(batch["dee_mean"], expected.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(batch["dee_log_variance"], expected.log_variance, rtol=1e-4, atol=1e-5)


def test_precomputation_is_refused_without_fixed_windows_features_or_a_local_directory(
    trained, tiny_config, tmp_path
):
    with pytest.raises(UserError, match=r"data.windows_per_clip=0; give --config.data.windows_per_clip=N"):
        precompute_features(make_stage(tiny_config("deeptalk", trained)), tmp_path)
    with pytest.raises(
        UserError, match=r"--precompute_features=gs://bucket/x: object stores are not supported"
    ):
        precompute_features(make_stage(tiny_config("deeptalk", trained, **FIXED)), "gs://bucket/x")
    with pytest.raises(UserError, match="stage 'dee' has no features of frozen networks"):
        precompute_features(make_stage(tiny_config("dee", trained, **FIXED)), tmp_path)
    assert not list(tmp_path.iterdir()), "a file was left"
