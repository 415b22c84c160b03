"""Tests of speech synthesis with eSpeak NG."""

import numpy as np
import pytest

from data_pipeline.synthetic_talk import espeak

_CALM = {"rate_wpm": 165, "pitch": 50, "pitch_range": 50}


def test_an_utterance_does_not_depend_on_earlier_utterances():
    text = "The garden was quiet, and maybe tomorrow I will buy a new one."
    first = espeak.speak(text, "en-us+f3", seed=1, **_CALM)
    espeak.speak("Hello there!", "en-gb-x-rp+m3", seed=5, rate_wpm=300, pitch=80, pitch_range=90)
    again = espeak.speak(text, "en-us+f3", seed=1, **_CALM)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.phonemes == again.phonemes


def test_seed_keeps_the_phonemes_and_the_approximate_length():
    one = espeak.speak("We should go now.", "en-us+f3", seed=1, **_CALM)
    two = espeak.speak("We should go now.", "en-us+f3", seed=2, **_CALM)
    assert [p.symbol for p in one.phonemes] == [p.symbol for p in two.phonemes]
    assert abs(len(one.samples) - len(two.samples)) < 0.05 * len(one.samples)


def test_phonemes_cover_the_utterance_without_gaps():
    utterance = espeak.speak("She bought the boat.", "en-us", seed=0, **_CALM)
    starts = [p.start_s for p in utterance.phonemes]
    ends = [p.end_s for p in utterance.phonemes]
    assert starts[0] == 0 and starts[1:] == ends[:-1]
    assert ends[-1] == len(utterance.samples) / espeak.ESPEAK_RATE_HZ
    spoken = "".join(p.symbol for p in utterance.phonemes)
    assert spoken.startswith("ʃ") and spoken.endswith("t")


def test_a_lower_rate_gives_longer_speech():
    slow = espeak.speak("They are all here.", "en-us", seed=0, rate_wpm=120, pitch=50, pitch_range=50)
    fast = espeak.speak("They are all here.", "en-us", seed=0, rate_wpm=240, pitch=50, pitch_range=50)
    assert len(slow.samples) > 1.5 * len(fast.samples)


@pytest.mark.parametrize("voice", ["en-us+nobody", "klingon-xx"])
def test_unknown_voices_are_rejected(voice):
    with pytest.raises(ValueError, match=r"eSpeak has no voice"):
        espeak.speak("Hello.", voice, seed=0, **_CALM)
