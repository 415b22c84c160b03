"""Tests of the synthesis of a given sentence."""

import numpy as np
import pytest

from data_pipeline.synthetic_talk.say import say
from deeptalk_jax.errors import UserError


def test_say_returns_int16_samples_of_whole_motion_frames():
    audio = say("Say this.", emotion="sad", speaker=3, intensity=1)
    assert audio.dtype == np.int16 and len(audio) % 640 == 0
    np.testing.assert_array_equal(audio, say("Say this.", emotion="sad", speaker=3, intensity=1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "?!"}, r"text='\?!' contains no words"),
        ({"emotion": "bored"}, "emotion='bored': expected one of neutral, happy"),
        ({"speaker": 4}, "speaker=4, intensity=3: expected a speaker of 0 to 3"),
        ({"intensity": 0}, "intensity=0: expected .* an intensity of 1 to 3"),
    ],
)
def test_say_rejects_invalid_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        say(**({"text": "Say this.", "emotion": "sad"} | arguments))
