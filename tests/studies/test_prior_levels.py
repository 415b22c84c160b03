"""Exchange of codes: pairs and measures checked by hand, and the models of a tiny model directory."""

import jax
import numpy as np
import pytest

from data_pipeline.records import Record
from deeptalk_jax.assembly.build import build_motion_prior
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.studies.prior_levels.chart import draw_levels
from deeptalk_jax.studies.prior_levels.measure import (
    Models,
    Pair,
    find_pairs,
    is_pair,
    load_models,
    measure,
    study,
)
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM

WINDOW = 8


def record(emotion=0, text="a", speaker=0, intensity=0, num_frames=20, seed=0):
    motion = np.random.default_rng(seed).normal(size=(num_frames, MOTION_DIM)).astype(np.float32)
    labels = {"emotion": emotion, "intensity": intensity, "speaker": speaker, "identity": -1}
    return Record(np.zeros(0, np.int16), motion, labels, "", text)


def test_kinds_of_pairs_by_hand():
    base = record()
    assert is_pair("other_emotion", base, record(emotion=1, speaker=2, intensity=1))
    assert not is_pair("other_emotion", base, record())
    assert not is_pair("other_emotion", base, record(emotion=1, text="b"))
    # Clips without text may have different sentences.
    assert not is_pair("other_emotion", record(text=""), record(emotion=1, text=""))
    assert is_pair("other_sentence", base, record(text="b"))
    for change in ({"emotion": 1}, {"speaker": 1}, {"intensity": 1}):
        assert not is_pair("other_sentence", base, record(text="b", **change))
    with pytest.raises(ValueError, match="kind='else': expected one of"):
        is_pair("else", base, base)


def test_pairs_are_cut_to_common_windows():
    records = [record(0, num_frames=20), record(1, num_frames=31), record(2, num_frames=7)]
    (pair,) = find_pairs(records, "other_emotion", 9, WINDOW)
    np.testing.assert_array_equal(pair.first, records[0].motion[:16])
    np.testing.assert_array_equal(pair.second, records[1].motion[:16])
    many = [record(emotion) for emotion in range(6)]
    assert len(find_pairs(many, "other_emotion", 4, WINDOW)) == 4
    with pytest.raises(
        UserError, match="no two clips of at least 8 frames form a pair of kind 'other_sentence'"
    ):
        find_pairs(many, "other_sentence", 4, WINDOW)


def by_hand(lips_from_top):
    """Returns models with the expression as top codes and the jaw as bottom codes."""

    def swap(first, second):
        clips = (first, second)
        return {
            (top, bottom): np.concatenate(
                [clips[top][..., :EXPRESSION_DIM], clips[bottom][..., EXPRESSION_DIM:]], axis=-1
            )
            for top in (0, 1)
            for bottom in (0, 1)
        }

    def embed(motion, num_frames):
        return np.stack(
            [row[:length, :3].mean(axis=0) for row, length in zip(motion, num_frames, strict=True)]
        )

    def vertices(
        motion,
    ):  # a vertex that the expression moves, and one that it moves by a tenth and the jaw by nine
        jaw, expression = motion[:, EXPRESSION_DIM:], motion[:, :3]
        return np.stack([expression, lips_from_top * expression + (1 - lips_from_top) * jaw], axis=1)

    return Models(swap, embed, lambda *both: embed(*both).argmax(-1), vertices, np.array([1]), WINDOW)


def test_measures_by_hand():
    clips = np.random.default_rng(1).normal(size=(4, 16, MOTION_DIM)).astype(np.float32)
    clips[:, :, :3] += 9 * np.eye(4, 3)[:, None]  # clips 0, 1, 2 are of classes 0, 1, 2
    clips[3, :, 0] += 9  # clip 3 is of class 0 too
    pairs = [Pair(clips[0], clips[1]), Pair(clips[2][:8], clips[0][:8]), Pair(clips[0], clips[3])]
    values = measure(by_hand(0.0), pairs)
    np.testing.assert_allclose(values["emotion_embedding"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(values["jaw_motion"], 0.0, atol=1e-5)
    np.testing.assert_allclose(values["lip_motion"], 0.0, atol=1e-5)
    np.testing.assert_allclose(values["lip_bottom"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(values["lip_top"], values["lip_sources"], rtol=1e-5)
    np.testing.assert_allclose(values["jaw_bottom"], 1.0, rtol=1e-5)
    assert np.all(np.abs(values["jaw_sources"]) < 0.9)
    # One vertex follows the top codes and one mostly the bottom codes; the first one dominates the distance.
    assert all(0.9 < share < 1.0 for share in values["mean_face"][:2])
    np.testing.assert_array_equal(values["class_top"], [1.0, 1.0, np.nan])
    np.testing.assert_array_equal(values["class_bottom"], [0.0, 0.0, np.nan])
    np.testing.assert_allclose(measure(by_hand(1.0), pairs)["lip_motion"], 1.0, rtol=1e-5)


def test_study_of_a_model_directory(model_directory, model_parts):
    models = load_models(model_directory)
    window = models.window_frames
    clips = np.random.default_rng(2).normal(size=(2, 3, 2 * window, MOTION_DIM)).astype(np.float32)
    swapped = models.swap(*clips)
    # Windows are decoded separately, and without an exchange the result is the reconstruction.
    part = model_parts["motion_prior"]
    prior = build_motion_prior(part.config)
    whole = jax.jit(prior.apply)(part.variables, clips[1][:, window:]).motion
    np.testing.assert_allclose(swapped[1, 1][:, window:], whole, rtol=1e-4, atol=1e-5)
    assert not np.allclose(swapped[0, 1], swapped[1, 1], atol=1e-3)
    assert not np.allclose(swapped[1, 0], swapped[1, 1], atol=1e-3)
    records = [
        record(emotion, text, num_frames=window + 5, seed=seed)
        for seed, (emotion, text) in enumerate([(0, "a"), (1, "a"), (0, "b")])
    ]
    report = study(models, records, 5)
    assert [report[kind]["num_pairs"] for kind in ("other_emotion", "other_sentence")] == [1, 1]
    assert draw_levels(report).startswith(b"\x89PNG")


def test_prior_with_one_level_is_rejected(model_directory, monkeypatch):
    monkeypatch.setattr(
        "deeptalk_jax.studies.prior_levels.measure.build_motion_prior", lambda config: HeadModel
    )
    with pytest.raises(UserError, match="expected one with two levels of codes"):
        load_models(model_directory)
