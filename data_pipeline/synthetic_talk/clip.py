"""One clip of the corpus: which one it is (`ClipPlan`), and how it is made (`make_clip`)."""

from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic_talk import acoustics, espeak, motion, speakers, visemes
from data_pipeline.synthetic_talk.sentences import SENTENCES
from deeptalk_jax.types import EMOTIONS, NUM_INTENSITIES

_STRENGTHS = (0.3, 0.62, 1.0)  # mean strength of each intensity
_SHARED_STD = 0.09  # of the strength, in voice and face alike
_OWN_STD = 0.06  # of the strength, in each of them alone
_PITCH_PER_SEMITONE = 50 / 12  # eSpeak's pitch parameter: 50 more is an octave
_LONG_SILENCE_RATE = 0.15  # of clips that end in silence of a second: a model must see mouths at rest
_RATE_FACTOR = 0.78  # of the rates in the table, which are brisk: about 175 words a minute in all


class ClipPlan(NamedTuple):
    """What is decided about a clip before it is made.

    Attributes:
        seed: of the corpus.
        split: name of the split.
        index: number of the clip in its split.
        speaker: 0 to 31.
        emotion: index into `EMOTIONS`.
        intensity: 0 to 2 for levels 1 to 3.
        name: unique in the corpus, such as `speaker07_happy_3_0012`.
    """

    seed: int
    split: str
    index: int
    speaker: int
    emotion: int
    intensity: int
    name: str


class Clip(NamedTuple):
    """A clip.

    Attributes:
        audio: `[s]` int16 at 16 kHz, a whole number of motion frames.
        motion: `[t, 53]` float32 at 25 Hz, `t = s / 640`.
        visemes: `[t]` uint8, index into `types.VISEME_CLASSES` of what the mouth is at in every frame.
        text: the sentence.
    """

    audio: np.ndarray
    motion: np.ndarray
    visemes: np.ndarray
    text: str


def plan_split(split: str, num_clips: int, seed: int) -> list[ClipPlan]:
    """The plans of a split, the first of them the same for any number of clips.

    Emotions take turns; every block of 8 emotions x 3 intensities x speakers of the split holds each
    combination once, and neighbours in it have different speakers.

    Args:
        split: one of `speakers.SPLITS`.
        num_clips: how many.
        seed: of the corpus.
    """
    cast = speakers.split_speakers(split)
    plans = []
    for index in range(num_clips):
        emotion = index % len(EMOTIONS)
        intensity = index // len(EMOTIONS) % NUM_INTENSITIES
        round_index = index // (len(EMOTIONS) * NUM_INTENSITIES)
        speaker = cast[(round_index + emotion * NUM_INTENSITIES + intensity) % len(cast)]
        take = round_index // len(cast) + 1
        name = f"speaker{speaker:02d}_{EMOTIONS[emotion]}_{intensity + 1}_{take:04d}"
        plans.append(ClipPlan(seed, split, index, speaker, emotion, intensity, name))
    return plans


def make_clip(plan: ClipPlan, sentence: str | None = None) -> Clip:
    """Speaks and moves; depends on the plan alone, and on the sentence where one is given."""
    key = [plan.seed, speakers.SPLITS.index(plan.split), plan.index]
    voice_rng, face_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(key).spawn(2))
    emotion = EMOTIONS[plan.emotion]
    shared = _STRENGTHS[plan.intensity] + _SHARED_STD * voice_rng.standard_normal()
    voice_strength = float(np.clip(shared + _OWN_STD * voice_rng.standard_normal(), 0.02, 1.35))
    face_strength = float(np.clip(shared + _OWN_STD * face_rng.standard_normal(), 0.02, 1.35))
    prosody = acoustics.draw_prosody(emotion, voice_strength, voice_rng)
    drawn = SENTENCES[voice_rng.integers(len(SENTENCES))]
    sentence = drawn if sentence is None else sentence
    voice = speakers.VOICES[plan.speaker]
    utterance = espeak.speak(
        _punctuate(sentence, prosody, voice_rng),
        voice.name,
        seed=int(voice_rng.integers(2**31)),
        rate_wpm=_RATE_FACTOR * voice.rate_wpm * np.exp(prosody.rate),
        pitch=voice.pitch + _PITCH_PER_SEMITONE * prosody.pitch_semitones,
        pitch_range=50 * np.exp(prosody.pitch_range),
    )
    lead_s, tail_s = voice_rng.uniform(0.12, 0.4), voice_rng.uniform(0.08, 0.3)
    if voice_rng.random() < _LONG_SILENCE_RATE:
        tail_s += voice_rng.uniform(0.5, 1.4)
    audio = acoustics.render(utterance.samples, prosody, lead_s=lead_s, tail_s=tail_s, rng=voice_rng)
    segments = visemes.segment(
        utterance.phonemes, lead_s=lead_s, total_s=len(audio) / acoustics.AUDIO_RATE_HZ
    )
    frames = motion.compose(
        segments,
        audio,
        emotion=emotion,
        strength=face_strength,
        effort_db=prosody.loudness_db,
        style=speakers.motion_style(plan.speaker),
        rng=face_rng,
    )
    return Clip(audio, frames, visemes.frame_classes(segments, len(frames)), sentence)


def _punctuate(sentence: str, prosody: acoustics.Prosody, rng: np.random.Generator) -> str:
    """Ends a statement with the mark whose intonation the emotion asks for."""
    rising, exclaiming = rng.uniform(size=2) < (prosody.rising, prosody.exclaiming)
    if sentence.endswith("?") or not (rising or exclaiming):
        return sentence
    return sentence[:-1] + ("?" if rising else "!")
