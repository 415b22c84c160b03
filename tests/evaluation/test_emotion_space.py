"""Evaluation of hand-made embeddings."""

import json

import jax
import numpy as np
import pytest

from configs import dee
from deeptalk_jax.evaluation.emotion_space import (
    Embeddings,
    embed_clips,
    evaluate_space,
    trained_logits,
    training_weights,
)
from deeptalk_jax.losses.distances import gaussian_distance
from deeptalk_jax.stages.run import write_evaluation
from deeptalk_jax.types import EMOTIONS, Gaussian

NUM_CLIPS = 48
EMOTION = np.arange(NUM_CLIPS) % 8
INTENSITY = np.arange(NUM_CLIPS) // 8 % 3
SAME = EMOTION[:, None] == EMOTION[None, :]


def options(**changes):
    with dee.get_config().loss.unlocked() as loss:
        loss.update(changes)
    return loss


def embeddings(noise=0.0):
    """Returns embeddings with one axis per emotion and a variance that decreases with intensity."""
    rng = np.random.default_rng(0)
    log_variance = np.repeat(-3.0 - INTENSITY[:, None], 8, axis=1)
    sides = []
    for _ in range(2):
        mean = np.eye(8)[EMOTION] + noise * rng.standard_normal((NUM_CLIPS, 8))
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        sides.append(Gaussian(*(moment.astype(np.float32)[:, None] for moment in (mean, log_variance))))
    return Embeddings(*sides, EMOTION, INTENSITY)


def evaluate(loss=None, space=None, scale=5.0, shift=5.0):
    return evaluate_space(loss or options(), space or embeddings(), SAME, scale, shift, batch_size=16)


def test_perfect_space():
    metrics = evaluate(scale=40.0, shift=60.0).metrics
    for direction in ("speech_to_motion", "motion_to_speech"):
        assert [metrics[f"{direction}_r{k}"] for k in (1, 5, 10)] == [1.0, 1.0, 1.0]
        assert metrics[f"{direction}_median_rank"] == 1.0
        # All six clips of an emotion have the same mean. Those of the highest intensity, with the smallest variance,
        # come first (clips 2 and 5 of each emotion), then 1 and 4, then 0 and 3.
        assert metrics[f"{direction}_pair_r1"] == pytest.approx(1 / 6)
        assert metrics[f"{direction}_pair_r10"] == 1.0
        assert metrics[f"{direction}_pair_median_rank"] == 3.5
    assert metrics["chance"] == pytest.approx(1 / 8)
    assert metrics["chance_pair_r5"] == pytest.approx(5 / 48)
    assert metrics["ece"] < 1e-3
    assert metrics["brier_skill"] > 0.99
    for tower in ("speech", "motion"):
        assert metrics[f"{tower}_variance"] == pytest.approx(8 * np.exp([-3, -4, -5]).mean(), rel=1e-5)
        assert metrics[f"{tower}_variance_intensity_spearman"] == pytest.approx(-1.0)
        assert np.isfinite(metrics[f"{tower}_entropy_intensity_spearman"])


def test_shuffled_space_is_poor():
    space = embeddings()
    shuffled = np.random.default_rng(0).permutation(NUM_CLIPS)
    speech = jax.tree.map(lambda values: values[shuffled], space.audio_components)
    space = space._replace(audio_components=speech)
    metrics = evaluate(space=space).metrics
    assert metrics["speech_to_motion_r1"] < 0.4
    assert metrics["ece"] > 0.1
    assert metrics["brier_skill"] < 0.1
    assert abs(metrics["speech_variance_intensity_spearman"]) < 0.5


def test_details_agree_with_the_metrics_and_are_json():
    result = evaluate(space=embeddings(noise=0.5))
    details = json.loads(json.dumps(result.details, allow_nan=False))
    for direction, tower in (("speech_to_motion", "speech"), ("motion_to_speech", "motion")):
        recall = result.metrics[f"{direction}_r1"]
        assert 0.3 < recall < 1.0
        found = details[direction]
        confusion = np.array(found["confusion"])
        np.testing.assert_array_equal(confusion.sum(axis=1), 6)
        assert np.trace(confusion) / NUM_CLIPS == pytest.approx(recall)
        for by in ("r1_by_emotion", "r1_by_intensity"):  # groups of the same size
            assert np.mean(list(found[by].values())) == pytest.approx(recall), by
        variance = details[f"{tower}_variance"]
        sizes = [5] * 8 + [4] * 2
        assert np.average(variance["r1_by_decile"], weights=sizes) == pytest.approx(recall)
        assert np.all(np.diff(variance["mean_by_decile"]) >= 0)
        assert variance["intensity_spearman_within_emotion"] == pytest.approx(-1.0)
        assert list(variance["mean_by_intensity"]) == ["1", "2", "3"]
        assert list(variance["mean_by_emotion"]) == list(EMOTIONS)
    assert sum(details["reliability"]["share"]) == pytest.approx(1.0)


def test_underflowing_probabilities_give_finite_metrics():
    space = embeddings()
    speech = space.audio_components
    wide = space._replace(
        audio_components=speech._replace(log_variance=np.full_like(speech.mean, 6.0)),
    )
    result = evaluate(space=wide)
    # All predictions are 0. Among the 16 clips of a batch, the clip itself matches, and 5 others with weight 15/47.
    assert result.metrics["ece"] == pytest.approx((1 + 5 * 15 / 47) / 16)
    assert result.details["speech_entropy"]["mean_by_intensity"][1] < np.log(8)


def test_untrained_quantities_are_not_measured(tmp_path):
    result = evaluate(options(kind="info_nce"), scale=2.0)
    assert not {"ece", "brier_skill", "speech_variance"} & result.metrics.keys()
    assert [panel.name for panel in result.draw()] == ["map", "confusion"]
    few = evaluate_space(
        options(), jax.tree.map(lambda values: values[:3], embeddings()), np.eye(3, dtype=bool), 5.0, 5.0, 16
    )
    assert "speech_variance_intensity_spearman" not in few.metrics  # all clips have the same intensity
    assert few.metrics["speech_to_motion_pair_r5"] == 1.0
    write_evaluation(tmp_path / "eval", "few", few)
    names = [f"few{end}" for end in (".html", ".json", *(f"_{x}.png" for x in ("confusion", "map")))]
    assert {*names, "few_variance.png", "few_reliability.png"} == {
        p.name for p in (tmp_path / "eval").iterdir()
    }


@pytest.mark.parametrize("distance", ["csd", "wasserstein"])
def test_logits_of_the_closed_form(distance):
    space = embeddings(noise=0.3)
    found = trained_logits(options(distance=distance), space, 3.0, 2.0)
    expected = 2.0 - 3.0 * np.asarray(gaussian_distance(distance, space.audio, space.motion))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def at(means, log_variance):
    """128 clips, more than are looked at at once, with the mixtures' means given `[n, k, d]` for both sides."""
    wide = [np.resize(mean, (128, *mean.shape[1:])).astype(np.float32) for mean in means]
    sides = (Gaussian(mean, np.full_like(mean, log_variance)) for mean in wide)
    return Embeddings(*sides, np.zeros(128, int), np.zeros(128, int))


def test_logits_of_samples():
    loss, space = options(kind="mc_soft_contrastive", num_samples=2), embeddings(noise=0.3)
    means = (space.audio_components.mean, space.motion_components.mean)
    narrow = at(means, -40.0)
    found = trained_logits(loss, narrow, 3.0, 2.0)
    distance = np.linalg.norm(narrow.audio.mean[:, None] - narrow.motion.mean[None], axis=-1)
    np.testing.assert_allclose(found, 4.0 - 6.0 * distance, rtol=1e-3, atol=1e-3)
    assert np.abs(trained_logits(loss, at(means, -2.0), 3.0, 2.0) - found).max() > 0.1


def test_logits_of_mixtures_are_of_all_pairs_of_components():
    loss = options(kind="mc_soft_contrastive", num_samples=2)
    found = trained_logits(
        loss, at((np.array([[[0.0], [3.0]]]), np.array([[[1.0], [5.0]]])), -40.0), 1.0, 1.5
    )
    # Distances 1, 5, 2, 2, hence sigmoid(1), sigmoid(-7), sigmoid(-1) twice.
    match = np.mean(1.0 / (1.0 + np.exp([-1.0, 7.0, 1.0, 1.0])))
    np.testing.assert_allclose(found, np.full((128, 128), np.log(match / (1.0 - match))), rtol=1e-3)


def test_weights_are_the_frequency_of_pairs_in_batches():
    rng, met = np.random.default_rng(0), np.zeros((5, 5))
    for _ in range(4000):
        batch = rng.permutation(5)[:3]
        met[np.ix_(batch, batch)] += 1
    np.testing.assert_allclose(met / met[0, 0], training_weights(5, 3), atol=0.05)


def test_embedding_drops_padding_rows():
    def embed(variables, frozen, batch):
        mean = batch["motion"][:, :1] * variables + frozen
        return Gaussian(mean, mean), Gaussian(-mean, mean)

    def batch(numbers, num_frames):
        column = np.array(numbers, np.int32)
        motion = np.broadcast_to(column[:, None, None], (2, 3, 4)).astype(np.float32)
        num_frames = np.array(num_frames)
        lengths = {"num_frames": num_frames, "num_samples": num_frames, "valid": num_frames > 0}
        return {"audio": motion, "motion": motion, "emotion": column, "intensity": column, **lengths}

    found = embed_clips(embed, 2.0, 1.0, [batch([0, 1], [3, 3]), batch([2, -1], [3, 0])])
    np.testing.assert_array_equal(found.emotion, [0, 1, 2])
    np.testing.assert_array_equal(found.audio.mean[:, 0], [1, 3, 5])
    np.testing.assert_array_equal(found.motion.mean, -found.audio.mean)
