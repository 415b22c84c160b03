"""Command that speaks a given sentence with a synthetic voice of the test split.

    python -m data_pipeline.synthetic_talk.say --text="Say this." --emotion=sad --out=speech.wav

Voices of the test split are not in the training data of models that are trained on the corpus.
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
    """Synthesises a sentence and returns its samples, `[s]` int16 at 16 kHz.

    Args:
        text: English text to speak.
        emotion: One of `types.EMOTIONS`.
        speaker: Index of the voice in the test split, 0 to 3.
        intensity: Intensity of the emotion, 1 to 3.

    Raises:
        UserError: The text has no words, or the emotion, speaker or intensity is unknown.
    """
    voices = split_speakers("test")
    if not any(character.isalnum() for character in text):
        raise UserError(f"text={text!r} contains no words; expected English text")
    if emotion not in EMOTIONS:
        raise UserError(f"emotion={emotion!r}: expected one of {', '.join(EMOTIONS)}")
    if not 0 <= speaker < len(voices) or not 1 <= intensity <= NUM_INTENSITIES:
        raise UserError(
            f"speaker={speaker}, intensity={intensity}: expected a speaker of 0 to {len(voices) - 1} and an intensity "
            f"of 1 to {NUM_INTENSITIES}"
        )
    plan = ClipPlan(0, "test", 0, voices[speaker], EMOTIONS.index(emotion), intensity - 1, "say")
    return make_clip(plan, text, studio=True).audio


def _say() -> None:
    audio = say(_TEXT.value, emotion=_EMOTION.value, speaker=_SPEAKER.value, intensity=_INTENSITY.value)
    try:
        soundfile.write(_OUT.value, audio, AUDIO_RATE_HZ)
    except (OSError, soundfile.LibsndfileError, TypeError) as error:
        raise UserError(f"--out={_OUT.value}: cannot be written ({error})") from error


if __name__ == "__main__":
    _TEXT = flags.DEFINE_string("text", None, "English text to speak.", required=True)
    _EMOTION = flags.DEFINE_string(
        "emotion", "neutral", f"Emotion of the voice: one of {', '.join(EMOTIONS)}."
    )
    _SPEAKER = flags.DEFINE_integer("speaker", 0, "Index of the voice in the test split, 0 to 3.")
    _INTENSITY = flags.DEFINE_integer("intensity", 3, "Intensity of the emotion, 1 to 3.")
    _OUT = flags.DEFINE_string("out", None, "Sound file to write.", required=True)
    run_tool(_say)
