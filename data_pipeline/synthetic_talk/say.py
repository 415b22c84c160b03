"""A sentence of your own, spoken by a voice of the test split.

python -m data_pipeline.synthetic_talk.say --text="Say this." --emotion=sad --out=speech.wav
"""

import numpy as np
import soundfile
from absl import flags

from data_pipeline.synthetic_talk.clip import ClipPlan, make_clip
from data_pipeline.synthetic_talk.speakers import split_speakers
from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import AUDIO_RATE_HZ, EMOTIONS, NUM_INTENSITIES


def say(text: str, *, emotion: str, speaker: int = 0, intensity: int = NUM_INTENSITIES) -> np.ndarray:
    """`[s]` int16 at 16 kHz.

    Args:
        text: English.
        emotion: one of `types.EMOTIONS`.
        speaker: which voice of the test split.
        intensity: 1 to 3.

    Raises:
        UserError: nothing to say, or an unknown emotion, speaker or intensity.
    """
    voices = split_speakers("test")
    if not any(character.isalnum() for character in text):
        raise UserError(f"text={text!r} holds no word to speak")
    if emotion not in EMOTIONS:
        raise UserError(f"emotion={emotion!r} is not one of {', '.join(EMOTIONS)}")
    if not 0 <= speaker < len(voices) or not 1 <= intensity <= NUM_INTENSITIES:
        raise UserError(
            f"speaker={speaker}, intensity={intensity}: expected 0 to {len(voices) - 1} and 1 to 3"
        )
    plan = ClipPlan(0, "test", 0, voices[speaker], EMOTIONS.index(emotion), intensity - 1, "say")
    return make_clip(plan, text).audio


def _say() -> None:
    audio = say(_TEXT.value, emotion=_EMOTION.value, speaker=_SPEAKER.value, intensity=_INTENSITY.value)
    try:
        soundfile.write(_OUT.value, audio, AUDIO_RATE_HZ)
    except (OSError, soundfile.LibsndfileError, TypeError) as error:
        raise UserError(f"--out={_OUT.value}: cannot be written ({error})") from error


if __name__ == "__main__":
    _TEXT = flags.DEFINE_string("text", None, "What to say.", required=True)
    _EMOTION = flags.DEFINE_string("emotion", "neutral", f"One of {', '.join(EMOTIONS)}.")
    _SPEAKER = flags.DEFINE_integer("speaker", 0, "Voice of the test split.")
    _INTENSITY = flags.DEFINE_integer("intensity", 3, "1 to 3.")
    _OUT = flags.DEFINE_string("out", None, "Sound file to write.", required=True)
    run_tool(_say)
