"""Classification of speech by DEE: probabilities computed by hand, seconds, and the files."""

import json

import numpy as np
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.emotion_classes import (
    EmotionClasses,
    EmotionSecond,
    class_probabilities,
    emotions_json,
    emotions_srt,
)
from deeptalk_jax.types import EMOTIONS, Gaussian


def distribution(**given):
    return {name: given.get(name, 0.0) for name in EMOTIONS}


CLASSES = EmotionClasses(
    distribution(happy=0.75, sad=0.25),
    [
        EmotionSecond(0.0, 1.0, distribution(happy=0.8, sad=0.2)),
        EmotionSecond(1.0, 2.0, distribution(happy=0.61234, fear=0.38766)),
        EmotionSecond(2.0, 2.52, distribution(sad=0.9, neutral=0.1)),
    ],
)


def test_probabilities_by_hand():
    speech = Gaussian(np.float32([[1, 0], [0, 1]]), np.log(np.float32([[0.1, 0.1], [0.1, 0.3]])))
    centroids = Gaussian(
        np.float32([[1, 0], [0, 1], [-1, 0]]), np.log(np.float32([[0.1] * 2, [0.2] * 2, [0.1] * 2]))
    )
    # Squared distances of the means plus the variances of both.
    distance = np.array([[0 + 0.4, 2 + 0.6, 4 + 0.4], [2 + 0.6, 0 + 0.8, 2 + 0.6]])
    wanted = np.exp(-2.5 * distance)
    found = class_probabilities(speech, centroids, 2.5)
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize(("duration_s", "ends"), [(0.3, [0.3]), (1.0, [1.0]), (3.52, [1.0, 2.0, 3.0, 3.52])])
def test_every_second_has_probabilities(model, babble, duration_s, ends):
    classes = model.classify_emotion(babble(duration_s))
    assert [second.start_s for second in classes.seconds] == list(range(len(ends)))
    np.testing.assert_allclose([second.end_s for second in classes.seconds], ends)
    for probabilities in (classes.probabilities, *(second.probabilities for second in classes.seconds)):
        assert tuple(probabilities) == EMOTIONS
        np.testing.assert_allclose(sum(probabilities.values()), 1.0, rtol=1e-5)


def test_the_class_of_the_whole_sound_is_that_of_its_gaussian(model, babble):
    sound = babble(1.9)
    spoken = Gaussian(*(array[None] for array in model.emotion(audio=sound)))
    named = [model.emotion(name) for name in EMOTIONS]
    (wanted,) = class_probabilities(
        spoken,
        Gaussian(*(np.stack(arrays) for arrays in zip(*named, strict=True))),
        model._animator.match_scale,
    )
    classes = model.classify_emotion(sound)
    np.testing.assert_allclose(list(classes.probabilities.values()), wanted, rtol=1e-5)
    assert classes.name == EMOTIONS[np.argmax(wanted)]
    # A clip up to 2.56 s is embedded as a whole for each of its seconds.
    for second in classes.seconds:
        np.testing.assert_allclose(list(second.probabilities.values()), wanted, rtol=1e-4)


def test_seconds_depend_on_the_sound_around_them_only(model, babble):
    sound = np.concatenate([babble(4.0), babble(4.0, seed=5)])
    changed = np.concatenate([sound[: 4 * 16_000], babble(4.0, seed=6)])
    one, other = model.classify_emotion(sound), model.classify_emotion(changed)
    change = [
        max(abs(a.probabilities[name] - b.probabilities[name]) for name in EMOTIONS)
        for a, b in zip(one.seconds, other.seconds, strict=True)
    ]
    # The mean and variance of the whole clip, by which it is normalised, have a small effect.
    assert max(change[:3]) < 0.1 * min(change[5:])


def test_json_holds_the_probabilities():
    contents = json.loads(emotions_json(CLASSES))
    assert contents["emotions"] == CLASSES.probabilities
    assert contents["seconds"][1] == {
        "start_s": 1.0,
        "end_s": 2.0,
        "emotions": distribution(happy=0.6123, fear=0.3877),
    }
    assert len(contents["seconds"]) == 3


def test_subtitles_join_seconds_of_the_same_emotion():
    assert emotions_srt(CLASSES) == (
        "1\n00:00:00,000 --> 00:00:02,000\nhappy 0.71\n\n2\n00:00:02,000 --> 00:00:02,520\nsad 0.90\n"
    )
    late = EmotionClasses({}, [EmotionSecond(3_661.0, 3_662.0, distribution(fear=1.0))])
    assert emotions_srt(late).splitlines()[1] == "01:01:01,000 --> 01:01:02,000"


def test_a_sound_that_cannot_be_used_is_rejected(model, tmp_path):
    with pytest.raises(UserError, match=r"none.wav: no such file"):
        model.classify_emotion(tmp_path / "none.wav")
