"""Emotion centroids: computed by hand, and measured by a trained stage and by the command."""

import shutil

import jax
import numpy as np

from data_pipeline.records import open_split
from deeptalk_jax.assembly.build import build_dee
from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids, named_emotions, nearest_emotion
from deeptalk_jax.assembly.model_dir import Part, load_part, save_model
from deeptalk_jax.inference.emotion_blend import EmotionTable
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.stages.dee_statistics import _centroids
from deeptalk_jax.types import EMOTIONS


def test_moments_by_hand():
    """One class has two clips, the other none."""
    means = np.array([[[1.2, 1.6], [0.0, 0.0]]])  # (1, 0) + (0.2, 1.6)
    squares = np.array([[[1.04, 2.56], [0.0, 0.0]]])
    variances = np.array([[[0.3, 0.5], [0.0, 0.0]]])
    mean, log_variance, num_clips = _centroids(np.array([[2, 0]]), means, squares, variances)
    np.testing.assert_allclose(mean, [[[0.6, 0.8], [0, 0]]], rtol=1e-6)
    # Mean variance plus mean square minus squared mean: 0.15 + 0.52 - 0.36, and 0.25 + 1.28 - 0.64.
    np.testing.assert_allclose(np.exp(log_variance), [[[0.31, 0.89], [1, 1]]], rtol=1e-6)
    assert mean.dtype == log_variance.dtype == np.float32 and num_clips.tolist() == [[2, 0]]


def test_the_nearest_centroid_determines_the_emotion():
    mean = np.zeros((2, 2, 3), np.float32)
    mean[0, 1], mean[1, 0] = (0.6, 0.8, 0.0), (0.0, 0.0, 1.0)
    statistics = {"mean": mean, "num_clips": np.array([[0, 2], [1, 0]])}
    heard = nearest_emotion(
        statistics, np.array([[0.0, 1.0, 0.0], [0.0, 0.6, 0.8], [-1.0, 0.0, 0.0]], np.float32)
    )
    assert heard.tolist() == [0, 1, 1]  # classes without clips are ignored


def test_vectors_of_named_emotions_equal_those_of_inference():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(8, 3, 5)).astype(np.float32)
    counts = rng.integers(1, 9, (8, 3))
    counts[2, 1], counts[4] = 0, 0
    mean[counts == 0] = 0.0
    centroids = EmotionCentroids(mean, np.zeros_like(mean), counts)
    vectors = named_emotions(centroids._asdict())
    table = EmotionTable(centroids)
    for label in (0, 2, 7):
        np.testing.assert_allclose(vectors[label], table.gaussian(EMOTIONS[label]).mean, rtol=1e-5, atol=1e-6)
    assert not vectors[4].any()  # no clips


def test_training_saves_centroids_and_the_command_computes_the_same(trained, data_dir, commands, tmp_path):
    part = load_part(trained / "dee" / "model", "dee")
    statistics = part.statistics
    records = list(open_split(data_dir, "synthetic_talk", "train"))
    longest = part.config.data.max_clip_frames * 640
    cells = [(record.labels["emotion"], record.labels["intensity"]) for record in records]
    assert statistics["num_clips"].sum() == len(records)
    cell = max(set(cells), key=cells.count)
    audio = np.zeros((16, longest), np.float32)
    clips = [record.audio[:longest] for record, place in zip(records, cells, strict=True) if place == cell]
    for row, clip in zip(audio, clips, strict=False):
        row[: len(clip)] = clip / np.float32(32_768)
    lengths = np.array([*map(len, clips), *[1] * (16 - len(clips))], np.int32)
    embed = jax.jit(lambda audio, lengths: build_dee(part.config).apply(
        part.variables, audio, lengths, method=DEE.embed_audio
    ))  # fmt: skip
    gaussian = jax.tree.map(lambda array: np.asarray(array)[: len(clips)], embed(audio, lengths))
    mean = gaussian.mean.mean(axis=0)
    np.testing.assert_allclose(statistics["mean"][cell], mean / np.linalg.norm(mean), rtol=1e-3, atol=1e-4)
    variance = np.exp(gaussian.log_variance).mean(axis=0) + gaussian.mean.var(axis=0)
    np.testing.assert_allclose(statistics["log_variance"][cell], np.log(variance), rtol=1e-3, atol=1e-3)

    # Later stages export the statistics of their upstream parts.
    after = load_part(trained / "deeptalk" / "model", "dee").statistics
    assert all(np.array_equal(after[name], statistics[name]) for name in statistics)

    shutil.copytree(trained / "dee" / "model", tmp_path / "model")
    save_model(tmp_path / "model", {"dee": Part(part.config, part.variables)}, head="procedural")
    flags = ["--model", tmp_path / "model", "--data_dir", data_dir]
    ended = commands.run("deeptalk_jax.tools.emotion_centroids", *flags)
    assert ended.status == 0, ended.stderr
    assert ended.stdout.splitlines()[0].startswith("neutral    ") and len(ended.stdout.splitlines()) == 8
    made = load_part(tmp_path / "model", "dee").statistics
    for name, array in statistics.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-3, atol=1e-3, err_msg=name)
