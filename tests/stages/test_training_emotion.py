"""Emotion vectors that the generator is trained with: heard in the window, heard in the clip, or of the label."""

import jax
import numpy as np
import pytest

from data_pipeline.records import open_split
from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.types import INT16_SCALE


def batch_of(stage):
    batch = next(stage.train_batches(num_processes=1, process_index=0))
    return {**batch, "audio": batch["audio"] * INT16_SCALE}


def emotion_of(stage, batch, key=0):
    constants = stage.constants()
    features = stage.window_features({}, constants, batch)
    return stage.training_emotion(constants, batch | features, jax.random.key(key))


@pytest.fixture(scope="module")
def make(trained, tiny_config):
    return lambda **changes: make_stage(tiny_config("deeptalk", trained, **changes))


def test_of_the_window_it_is_what_dee_hears_in_its_samples(make):
    stage = make(emotion_context="window", emotion_label_rate=0.0)
    batch, dee = batch_of(stage), stage.upstream["dee"]
    heard = stage.dee.apply(dee.variables, batch["audio"], batch["num_samples"], method=DEE.embed_audio)
    np.testing.assert_allclose(emotion_of(stage, batch).mean, heard.mean, rtol=1e-6)


def test_of_the_clip_it_is_what_dee_hears_in_all_its_samples(make, data_dir):
    stage = make(emotion_context="clip", emotion_label_rate=0.0)
    batch, dee = batch_of(stage), stage.upstream["dee"]
    records, found = open_split(data_dir, "synthetic_talk", "train"), emotion_of(stage, batch)
    longest = stage.config.data.max_clip_frames * 640
    for row, clip in enumerate(batch["clip"][:3]):
        audio = records[int(clip)].audio[None, :longest] * INT16_SCALE
        heard = stage.dee.apply(dee.variables, audio, np.array([audio.shape[1]]), method=DEE.embed_audio)
        np.testing.assert_allclose(found.mean[row], heard.mean[0], rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(found.log_variance[row], heard.log_variance[0], rtol=2e-5, atol=1e-6)


def test_of_a_validation_clip_it_is_what_dee_hears_there(make, data_dir):
    stage = make(emotion_context="clip", emotion_label_rate=0.0, validate_every_steps=2)
    (batch,) = stage.validation_batches(1, num_processes=1, process_index=0)
    batch, dee = {**batch, "audio": batch["audio"] * INT16_SCALE}, stage.upstream["dee"]
    train, records = (open_split(data_dir, "synthetic_talk", name) for name in ("train", "validation"))
    record = records[int(batch["clip"][0]) - len(train)]
    audio = record.audio[None, : stage.config.data.max_clip_frames * 640] * INT16_SCALE
    heard = stage.dee.apply(dee.variables, audio, np.array([audio.shape[1]]), method=DEE.embed_audio)
    np.testing.assert_allclose(emotion_of(stage, batch).mean[0], heard.mean[0], rtol=2e-5, atol=1e-6)
    assert record.labels["emotion"] == batch["emotion"][0]


def test_of_the_label_it_is_the_centroid_of_emotion_and_intensity(make, trained):
    stage = make(emotion_context="window", emotion_label_rate=1.0)
    batch, statistics = batch_of(stage), load_part(trained / "dee" / "model", "dee").statistics
    batch["emotion"][1] = batch["intensity"][2] = -1  # clips without a label keep what is heard
    found, label = emotion_of(stage, batch), (batch["emotion"], batch["intensity"])
    heard = emotion_of(make(emotion_context="window", emotion_label_rate=0.0), batch)
    expected = np.where(np.isin(np.arange(8), (1, 2))[:, None], heard.mean, statistics["mean"][label])
    np.testing.assert_allclose(found.mean, expected, rtol=1e-6)
    assert np.all(np.linalg.norm(found.mean - heard.mean, axis=-1)[[0, 3, 4, 5, 6, 7]] > 1e-3)


def test_a_share_of_the_rows_gets_the_centroid_and_the_key_chooses_which(make):
    stage, all_rows = make(emotion_label_rate=0.5), make(emotion_label_rate=1.0)
    batch = batch_of(stage)
    named = emotion_of(all_rows, batch).mean
    chosen = np.array([np.all(emotion_of(stage, batch, key).mean == named, axis=-1) for key in range(6)])
    assert 12 <= chosen.sum() <= 36  # of 48 draws
    assert len({tuple(rows) for rows in chosen}) > 1


def test_labels_need_centroids(make):
    stage = make(emotion_label_rate=0.5)
    stage.upstream["dee"] = stage.upstream["dee"]._replace(statistics={})
    with pytest.raises(
        ConfigError, match=r"emotion_label_rate=0.5: the model directory of DEE has no emotion"
    ):
        stage.constants()


def test_viseme_head_learns_from_labelled_frames_only(make):
    stage = make(**{"model.num_visemes": 12, "loss.viseme_weight": 1.0})
    batch, constants = batch_of(stage), stage.constants()
    params = stage.init(jax.random.key(0))["params"]

    def error(labels, params=params):
        labelled = {**batch, "viseme": labels}
        encoded = stage.training_encoding(params, {}, constants, labelled, jax.random.key(1))
        return stage.viseme_terms(params, {}, constants, labelled, encoded)["viseme"]

    none = np.full_like(batch["viseme"], -1)
    one = none.copy()
    one[0, 3] = 5
    assert error(none) == 0.0
    assert error(one) > 0.0
    gradient = jax.grad(lambda params: error(one, params))(params)
    assert np.abs(gradient["speech_encoder"]["mel_map"]["kernel"]).max() > 0.0
    assert np.abs(gradient["predictor_top"]["pre_linear"]["kernel"]).max() == 0.0
