"""Named emotions: their grammar, and blends computed by hand."""

import numpy as np
import pytest

from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.emotion_blend import (
    Emotion,
    EmotionTable,
    Moments,
    blend_text,
    parse_blend,
    parse_emotion,
)
from deeptalk_jax.types import EMOTION_SYNONYMS, EMOTIONS, Gaussian

NEUTRAL, HAPPY, SAD, ANGRY = (EMOTIONS.index(name) for name in ("neutral", "happy", "sad", "angry"))
KNOWN = "known: neutral, happy, sad, surprised, fear, disgusted, angry, contempt"


@pytest.fixture
def table():
    """Neutral along the first axis at level 1 only; happy turns from the first to the second; sad opposes happy."""
    mean = np.zeros((8, 3, 3), np.float32)
    mean[NEUTRAL, 0] = 1, 0, 0
    mean[HAPPY] = [(0.8, 0.6, 0), (0.6, 0.8, 0), (0, 1, 0)]
    mean[SAD, :] = 0, -1, 0
    variance = np.ones((8, 3, 3), np.float32)
    variance[NEUTRAL] = 0.04
    variance[HAPPY, :, 0] = 0.01, 0.02, 0.03
    counts = np.zeros((8, 3), np.int32)
    counts[NEUTRAL, 0] = 4
    counts[HAPPY] = 1, 1, 2
    counts[SAD, 0] = counts[SAD, 2] = 5
    return EmotionTable(EmotionCentroids(mean, np.log(variance), counts))


def test_blends_parse_to_emotions_and_weights():
    assert parse_blend("happy") == [(Emotion("happy", None), 1.0)]
    assert parse_blend(" happy@3 : 0.8 , sad:.2,fear@0.5") == [
        (Emotion("happy", 3.0), 0.8),
        (Emotion("sad", None), 0.2),
        (Emotion("fear", 0.5), 1.0),
    ]
    assert parse_emotion("contempt@2") == Emotion("contempt", 2.0)


@pytest.mark.parametrize(
    ("text", "name"),
    [("Happy", "happy"), ("JOY", "happy"), ("anger", "angry"), ("Surprise", "surprised"), ("scared", "fear")],
)
def test_names_may_be_in_any_case_and_synonyms(text, name):
    assert parse_emotion(text) == Emotion(name)
    assert parse_blend(f"{text}@2:0.5") == [(Emotion(name, 2.0), 0.5)]


def test_synonyms_are_lower_case_words_for_emotions():
    assert set(EMOTION_SYNONYMS.values()) <= set(EMOTIONS)
    assert not set(EMOTION_SYNONYMS) & set(EMOTIONS)
    assert all(word == word.lower() for word in EMOTION_SYNONYMS)


def test_a_mapping_is_written_as_a_blend():
    assert blend_text({"happy": 0.8, "Joy@2": np.float32(0.25), "sad": 1}) == "happy:0.8,Joy@2:0.25,sad:1"
    for wrong in ({}, {"happy": "0.8"}, {1: 0.5}, {"happy": None, "sad": True}, {"happy": [1.0, 2.0]}):
        with pytest.raises(UserError, match="an emotion as a mapping needs"):
            parse_blend(blend_text(wrong))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hapy", "emotion 'hapy': unknown name 'hapy'"),
        ("Hapy", "unknown name 'Hapy'"),
        ("", "'' is not NAME"),
        ("happy,", "'' is not NAME"),
        ("happy:0.5:0.5", "'happy:0.5:0.5' is not NAME"),
        ("happy:", "'happy:' is not NAME"),
        ("happy@", "'happy@' is not NAME"),
        ("happy@4", "intensity '4' is not a number from 0 to 3"),
        ("happy@-1", "intensity '-1' is not a number from 0 to 3"),
        ("happy@nan", "intensity 'nan' is not a number from 0 to 3"),
        ("happy:-0.1", "weight '-0.1' is not a number 0 or above"),
        ("happy:nan", "weight 'nan' is not a number 0 or above"),
        ("happy:inf", "weight 'inf' is not a number 0 or above"),
        ("happy:much", "weight 'much' is not a number 0 or above"),
        ("happy:0,sad:0", "no weight is above 0"),
    ],
)
def test_malformed_blends_name_the_fault(text, message):
    with pytest.raises(UserError) as raised:
        parse_blend(text)
    assert message in str(raised.value) and KNOWN in str(raised.value) and repr(text) in str(raised.value)


def test_a_track_column_with_a_weight_is_rejected():
    with pytest.raises(UserError, match="'happy:1' must not have a weight"):
        parse_emotion("happy:1")


@pytest.mark.parametrize(
    ("text", "direction", "first_variance"),
    [
        ("happy@3", (0, 1, 0), 0.03),
        ("happy@2.5", (0.3, 0.9, 0), 0.025),
        ("happy@1", (0.8, 0.6, 0), 0.01),
        ("happy@0.5", (0.9, 0.3, 0), 0.025),  # half-way to neutral
        ("happy@0", (1, 0, 0), 0.04),
        ("happy", (0.35, 0.85, 0), 0.0225),  # 1, 1 and 2 clips
        ("neutral", (1, 0, 0), 0.04),
        ("neutral@3", (1, 0, 0), 0.04),
        ("happy@3:0.75", (0.25, 0.75, 0), 0.0325),  # the rest is neutral
        ("happy@3:3,neutral:1", (0.25, 0.75, 0), 0.0325),  # in proportion
        ("happy@3,neutral", (0.5, 0.5, 0), 0.035),
        ("happy@3:0.5,happy@1:0.5", (0.4, 0.8, 0), 0.02),
        ("sad@2", (0, -1, 0), 1.0),  # level without clips: the nearest level replaces it
    ],
)
def test_blends_by_hand(table, text, direction, first_variance):
    gaussian = table.gaussian(text)
    assert gaussian.mean.dtype == gaussian.log_variance.dtype == np.float32
    np.testing.assert_allclose(gaussian.mean, np.float64(direction) / np.linalg.norm(direction), atol=1e-6)
    np.testing.assert_allclose(np.exp(gaussian.log_variance[0]), first_variance, rtol=1e-5)


def test_emotions_without_clips_or_without_direction_are_rejected(table):
    with pytest.raises(UserError, match="'angry': the model was trained without clips of this emotion"):
        table.gaussian("angry")
    with pytest.raises(UserError, match="the emotions happy, sad cancel out"):
        table.gaussian("happy@3,sad")


def test_the_moments_of_a_gaussian_give_it_back():
    gaussian = Gaussian(np.float32([0.6, -0.8]), np.float32([-2.0, 0.3]))
    again = Moments.of(gaussian).gaussian()
    np.testing.assert_allclose(again.mean, gaussian.mean, rtol=1e-6)
    np.testing.assert_allclose(again.log_variance, gaussian.log_variance, rtol=1e-5)
