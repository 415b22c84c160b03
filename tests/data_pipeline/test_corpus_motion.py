"""Tests of the synthetic facial motion: articulation, expressions, blinks and speaker styles."""

import numpy as np
import pytest

from data_pipeline.synthetic_talk import expressions, motion, speakers, visemes
from data_pipeline.synthetic_talk.espeak import PAUSE, Phoneme
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.head.procedural import mouth_actions
from deeptalk_jax.types import EMOTIONS, MOTION_DIM

_STYLE = speakers.motion_style(0)
_JAW = 50


def _clip(*phonemes, emotion="neutral", strength=0.0, seed=0):
    """Returns the motion of phonemes of 0.2 s each at a constant level, after 0.4 s and before 0.8 s of silence."""
    spoken = tuple(Phoneme(symbol, 0.2 * i, 0.2 * (i + 1)) for i, symbol in enumerate(phonemes))
    num_frames = round(25 * (0.4 + 0.2 * len(spoken) + 0.8))
    audio = np.full(num_frames * 640, 2000, np.int16)
    segments = visemes.segment(spoken, lead_s=0.4, total_s=num_frames / 25)
    rng = np.random.default_rng(seed)
    return motion.compose(
        segments, audio, emotion=emotion, strength=strength, effort_db=0.0, style=_STYLE, rng=rng
    )


def _during(frames, position):
    """Returns the frames of a phoneme (0.2 s = 5 frames) without its first and last."""
    start = round(25 * (0.4 + 0.2 * position))
    return frames[start + 1 : start + 4]


def _action(name):
    return ACTION_INDEX[name]


def test_mouth_is_closed_in_silence():
    frames = _clip("ˈɑː", "m", "ˈɑː", PAUSE, PAUSE, PAUSE, "ˈɑː")
    for silence in (frames[:6], frames[-12:], _during(frames, 4)):
        assert silence[:, _JAW].max() < 0.02
        assert abs(silence[:, _action("lips_part")]).max() < 0.12


@pytest.mark.parametrize("vowel", ["ˈɑː", "æ", "a"])
def test_jaw_opens_in_open_vowels(vowel):
    assert _during(_clip("t", vowel, "t"), 1)[:, _JAW].max() > 0.12


def test_jaw_is_higher_in_close_vowels():
    frames = _clip("t", "ˈiː", "t", "ˈɑː", "t")
    assert _during(frames, 1)[:, _JAW].mean() < 0.5 * _during(frames, 3)[:, _JAW].mean()


@pytest.mark.parametrize("bilabial", ["m", "b", "p"])
def test_lips_close_over_the_jaw_in_bilabials(bilabial):
    frames = _clip("ˈɑː", bilabial, "ˈɑː")
    centre = _during(frames, 1)[1]
    gap = centre[_JAW] - motion.LIP_CLOSE_JAW_RAD * centre[_action("lip_close")]
    assert abs(gap) < 0.01 and abs(centre[_action("lips_part")]) < 0.08
    assert centre[_JAW] > 0.02
    vowel = _during(frames, 2)[1]
    assert vowel[_JAW] - motion.LIP_CLOSE_JAW_RAD * vowel[_action("lip_close")] > 0.1


@pytest.mark.parametrize(
    ("phoneme", "action"),
    [
        ("f", "lower_lip_suck"),
        ("v", "lower_lip_suck"),
        ("uː", "lip_pucker"),
        ("w", "lip_pucker"),
        ("iː", "lip_stretch_left"),
        ("ʃ", "lip_funnel"),
    ],
)
def test_lip_shape_of_a_phoneme(phoneme, action):
    frames = _clip("ə", phoneme, "ə")
    assert _during(frames, 1)[1, _action(action)] > 0.45
    assert abs(frames[:4, _action(action)]).max() < 0.1


def test_corpus_and_procedural_head_agree_on_lip_close():
    assert motion.LIP_CLOSE_JAW_RAD == mouth_actions.LIP_CLOSE_JAW_RAD


def test_louder_speech_opens_the_jaw_more():
    segments = visemes.segment((Phoneme("ˈɑː", 0.0, 0.4),), lead_s=0.2, total_s=0.8)
    level_db = np.full(20, -20.0)
    soft, loud = (
        motion.articulate(segments, level_db, effort_db=effort_db, jaw_factor=1.0, style=_STYLE)[:, 0]
        for effort_db in (-6.0, 6.0)
    )
    np.testing.assert_allclose(loud / soft, np.exp(0.03 * 12.0))


def test_expressions_grow_with_strength_and_differ_between_emotions():
    faces = {emotion: expressions.prototype(emotion, _STYLE) for emotion in EMOTIONS}
    assert not faces["neutral"].any()
    for one in EMOTIONS:
        for other in EMOTIONS:
            assert one == other or np.abs(faces[one] - faces[other]).max() > 0.3
    happy = [
        _clip("m", emotion="happy", strength=s)[:, _action("lip_corner_pull_left")].mean() for s in (0.3, 1.0)
    ]
    assert happy[1] > 2 * happy[0] > 0.2


def test_contempt_is_one_sided():
    face = expressions.prototype("contempt", _STYLE)
    left, right = face[_action("dimple_left")], face[_action("dimple_right")]
    assert max(left, right) > 5 * min(left, right)
    assert (left > right) == (_STYLE.contempt_side > 0)


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_motion_stays_in_range(emotion):
    frames = _clip("ˈɑː", "m", "ˈæ", "f", emotion=emotion, strength=1.3, seed=3)
    assert frames.shape == (50, MOTION_DIM) and frames.dtype == np.float32
    assert frames[:, :50].min() >= -0.5 and frames[:, :50].max() <= 1.5
    assert frames[:, _JAW].min() >= 0 and frames[:, _JAW].max() < 0.45
    assert np.abs(frames[:, 51:]).max() < 0.02


def test_blinks_last_3_to_7_frames_and_come_every_2_to_6_seconds():
    closure = expressions.blinks(2500, _STYLE, np.random.default_rng(0))
    edges = np.flatnonzero(np.diff(np.r_[0, closure > 0, 0]))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    assert set(lengths[:-1]) <= set(range(3, 8)) and len(set(lengths)) > 2
    assert np.diff(starts).min() >= 49 and np.diff(starts).max() <= 151
    assert closure.max() == 1


def test_speakers_have_distinct_and_moderate_styles():
    styles = [speakers.motion_style(speaker) for speaker in range(speakers.NUM_SPEAKERS)]
    assert len(set(styles)) == speakers.NUM_SPEAKERS
    assert all(0.8 <= style.jaw <= 1.2 and abs(style.smile_asymmetry) <= 0.25 for style in styles)
