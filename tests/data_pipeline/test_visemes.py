"""Tests of visemes and coarticulation."""

import numpy as np
import pytest

from data_pipeline.synthetic_talk import coarticulation, espeak, speakers, visemes
from data_pipeline.synthetic_talk.espeak import PAUSE, Phoneme
from data_pipeline.synthetic_talk.sentences import SENTENCES
from deeptalk_jax.types import VISEME_CLASSES

_LANGUAGES = sorted({voice.name.partition("+")[0] for voice in speakers.VOICES})


def _symbols(text, voice):
    utterance = espeak.speak(text, voice, seed=0, rate_wpm=350, pitch=50, pitch_range=50)
    return {phoneme.symbol for phoneme in utterance.phonemes}


@pytest.mark.parametrize("language", _LANGUAGES)
def test_every_phoneme_of_every_sentence_has_a_viseme(language):
    symbols = set()
    for start in range(0, len(SENTENCES), 40):
        symbols |= _symbols(" ".join(SENTENCES[start : start + 40]), language)
    assert len(symbols) > 60
    for symbol in symbols:
        assert visemes.split_phoneme(symbol), symbol


@pytest.mark.parametrize("voice", [voice.name for voice in speakers.VOICES])
def test_every_voice_exists_and_its_phonemes_have_visemes(voice):
    for symbol in _symbols(
        "She chose my blue measure, though boys judge the fair thing. Why not sing?", voice
    ):
        visemes.split_phoneme(symbol)


@pytest.mark.parametrize(
    ("symbol", "sounds"),
    [
        (PAUSE, [("_", 1.0)]),
        ("m", [("m", 0.6)]),
        ("ˈɑːɹ", [("ɑ", 1.5), ("ɹ", 0.6)]),
        ("ˌaɪə", [("a", 1.0), ("ɪ", 1.0), ("ə", 1.0)]),
        ("tʃ", [("t", 0.6), ("ʃ", 0.6)]),
        ("n̩", [("n", 0.6)]),
    ],
)
def test_split_phoneme_gives_sounds_and_relative_durations(symbol, sounds):
    assert visemes.split_phoneme(symbol) == sounds


def test_a_letter_without_viseme_is_rejected():
    with pytest.raises(ValueError, match=r"no viseme for 'ɬ' \(U\+026C\) in the phoneme 'ɬa'"):
        visemes.split_phoneme("ɬa")


def test_segments_cover_the_clip_without_gaps():
    spoken = (("m", 0.1), ("ˈaɪ", 0.2), (PAUSE, 0.05), ("n", 0.1), (PAUSE, 0.02))
    ends_s = np.cumsum([duration_s for _, duration_s in spoken])
    phonemes = tuple(
        Phoneme(symbol, end_s - d, end_s) for (symbol, d), end_s in zip(spoken, ends_s, strict=True)
    )
    segments = visemes.segment(phonemes, lead_s=0.2, total_s=0.8)
    # A short pause between sounds becomes a glottal stop, which leaves the lips free; a pause at the end is silence.
    assert segments.sounds == ("_", "m", "a", "ɪ", "ʔ", "n", "_", "_")
    assert np.flatnonzero(segments.stressed).tolist() == [2]
    edges_s = [0, 0.2, 0.3, 0.4, 0.5, 0.55, 0.65, 0.67, 0.8]
    np.testing.assert_allclose(segments.starts_s, edges_s[:-1])
    np.testing.assert_allclose(segments.ends_s, edges_s[1:])


def test_dominance_equals_hand_computed_values():
    # Two segments of 0.2 s have their cores at 0.05 to 0.15 s and 0.25 to 0.35 s. At 0.2 s both cores are 0.05 s away:
    # the first decays at the carry-over rate of 20/s, the second grows at the anticipation rate of 10/s.
    times_s, starts_s, ends_s = np.array([0.1, 0.2]), np.array([0.0, 0.2]), np.array([0.2, 0.4])
    peaks = np.array([[1.0], [2.0]])
    weights = coarticulation.dominance(times_s, starts_s, ends_s, peaks, np.array([10.0]), np.array([20.0]))
    expected = [[1.0, 2 * np.exp(-1.5)], [np.exp(-1.0), 2 * np.exp(-0.5)]]
    np.testing.assert_allclose(weights[..., 0], expected, rtol=1e-12)
    blended = coarticulation.blend(weights, np.array([[0.0], [1.0]]))
    first = 2 * np.exp(-1.5) / (1 + 2 * np.exp(-1.5))
    second = 2 * np.exp(-0.5) / (np.exp(-1.0) + 2 * np.exp(-0.5))
    np.testing.assert_allclose(blended[:, 0], [first, second], rtol=1e-12)


def test_blending_equal_targets_gives_the_target():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.1, 1.0, (7, 5, 3))
    np.testing.assert_allclose(coarticulation.blend(weights, np.full((5, 3), 0.3)), np.full((7, 3), 0.3))


def test_every_sound_has_exactly_one_viseme_class():
    classes = "".join(visemes.CLASS_SOUNDS.values())
    assert len(set(classes)) == len(classes)
    assert set(classes) == set(visemes.VISEMES)
    assert tuple(visemes.CLASS_SOUNDS) == VISEME_CLASSES


def test_the_class_of_a_frame_is_that_of_the_sound_at_its_middle():
    phonemes = (Phoneme("m", 0.0, 0.1), Phoneme("ˈɑː", 0.1, 0.3), Phoneme("f", 0.3, 0.36))
    segments = visemes.segment(phonemes, lead_s=0.1, total_s=0.6)
    names = [VISEME_CLASSES[index] for index in visemes.frame_classes(segments, 16)]
    silence = ["silence"] * 2
    # The sounds change at 0.1, 0.2, 0.4 and 0.46 s; the middle of frame i is at (i + 0.5) / 25 s.
    assert names == [*silence, *["bilabial"] * 3, *["open"] * 5, "labiodental", *["silence"] * 5]
