"""Emotion metrics of clips with known answers."""

import numpy as np
import pytest

from deeptalk_jax.evaluation.generator import GeneratedClip, Judgement, emotion_metrics, in_batches
from deeptalk_jax.losses.distances import closed_form_sampled_distance
from deeptalk_jax.types import Gaussian

NUM_EMOTIONS = 4


def judge(motion, num_frames):
    """Takes the first entry of the first frame as the emotion, and as the position in the space."""
    assert motion.shape == (2, 9, 53), "a batch has not the given size or the length of the longest clip"
    emotion = motion[:, 0, 0].astype(int)
    return Judgement(emotion, Gaussian(np.eye(NUM_EMOTIONS)[emotion], np.zeros((2, NUM_EMOTIONS))))


def clip(emotion, shown, num_frames, heard=None):
    truth, generated = (np.full((num_frames, 53), label, np.float32) for label in (emotion, shown))
    speech = Gaussian(np.eye(NUM_EMOTIONS)[emotion], np.zeros(NUM_EMOTIONS))
    return GeneratedClip(truth, generated, generated[None], emotion, speech, heard)


def metrics_of(clips, other):
    return emotion_metrics(
        clips, np.array(other), np.zeros(53, np.float32), in_batches(judge, 2), closed_form_sampled_distance
    )


def test_accuracy_and_retrieval_by_hand():
    # The last of the five clips shows 2 instead of 0.
    clips = [clip(0, 0, 4), clip(1, 1, 9), clip(2, 2, 5), clip(3, 3, 7), clip(0, 2, 6)]
    found = metrics_of(clips, [1, 2, 3, 4, 0])
    assert found["emotion_accuracy"] == 0.8
    assert found["true_motion_emotion_accuracy"] == 1.0
    assert found["mean_pose_emotion_accuracy"] == 0.4  # a pose of emotion 0
    assert found["shuffled_audio_emotion_accuracy"] == 0.2  # shown 1 2 3 2 0 for labels 0 1 2 3 0
    # All queries 0 1 2 3 0 find their emotion first; both speeches of 0 find the motion of the first clip.
    assert found["speech_to_motion_r1"] == 1.0
    assert found["motion_to_speech_r1"] == 0.8  # the motion that shows 2 finds the speech of 2
    assert found["true_motion_speech_to_motion_r1"] == 1.0
    assert found["chance_emotion"] == pytest.approx((2 * 0.4 + 3 * 0.2) / 5)
    assert not [name for name in found if "heard" in name or "named" in name]


def test_agreement_with_the_emotion_of_the_speech_by_hand():
    clips = [clip(0, 0, 4, 0), clip(1, 2, 9, 2), clip(2, 1, 5, 2), clip(3, 3, 7, 0)]
    found = metrics_of(clips, [1, 2, 3, 0])
    assert found["heard_emotion_accuracy"] == 0.5  # correct for the first and the third clip
    assert found["heard_emotion_agreement"] == 0.5  # shown 0 2 1 3, heard 0 2 2 0
    assert found["true_motion_heard_emotion_agreement"] == 0.5  # 0 1 2 3
    assert found["shuffled_audio_heard_emotion_agreement"] == 0.25  # shown 2 1 3 0


def test_accuracy_for_emotions_given_by_name():
    clips = [clip(0, 1, 4), clip(1, 1, 9), clip(2, 1, 5), clip(3, 1, 7)]
    shown = (0, 2, 2, 3)
    clips = [
        one._replace(named=np.full_like(one.truth, label)) for one, label in zip(clips, shown, strict=True)
    ]
    found = metrics_of(clips, [1, 2, 3, 0])
    assert found["emotion_accuracy"] == 0.25
    assert found["named_emotion_accuracy"] == 0.75
