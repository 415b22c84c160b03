"""Clips of the corpus: the plan of a clip (`ClipPlan`) and its generation (`make_clip`).

A clip depends on its plan only, so workers can generate clips in any order and number.
"""

from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic_talk import acoustics, background, espeak, motion, speakers, visemes
from data_pipeline.synthetic_talk.sentences import SENTENCES
from deeptalk_jax.types import EMOTIONS, NUM_INTENSITIES

_STRENGTHS = (0.3, 0.62, 1.0)  # mean emotion strength for intensities 0, 1 and 2
_SHARED_STD = 0.09  # standard deviation of the strength that voice and face have in common
_OWN_STD = 0.06  # standard deviation of the strength that voice and face have separately
_PITCH_PER_SEMITONE = 50 / 12  # eSpeak's pitch parameter rises by 50 per octave
# Fraction of clips that end in about a second of silence, so that models are trained on resting mouths too.
_LONG_SILENCE_RATE = 0.15
# Fraction of clips that begin long before their speech; a training window there has the background only.
_LONG_LEAD_RATE = 0.12
# Factor on the speaking rates in `speakers.VOICES`; it gives about 175 words per minute over the corpus.
_RATE_FACTOR = 0.78


class ClipPlan(NamedTuple):
    """Properties of a clip that are fixed before it is generated.

    Attributes:
        seed: Seed of the corpus.
        split: Name of the split.
        index: Index of the clip in its split.
        speaker: Number of the speaker, 0 to 31.
        emotion: Index into `EMOTIONS`.
        intensity: 0 to 2 for levels 1 to 3.
        name: Name of the clip, unique in the corpus, such as `speaker07_happy_3_0012`.
    """

    seed: int
    split: str
    index: int
    speaker: int
    emotion: int
    intensity: int
    name: str


class Clip(NamedTuple):
    """A generated clip.

    Attributes:
        audio: `[s]` int16 samples at 16 kHz, a whole number of motion frames long.
        motion: `[t, 53]` float32 at 25 Hz, `t = s / 640`.
        visemes: `[t]` uint8, index of each frame into `types.VISEME_CLASSES`.
        text: The spoken sentence.
    """

    audio: np.ndarray
    motion: np.ndarray
    visemes: np.ndarray
    text: str


def plan_split(split: str, num_clips: int, seed: int) -> list[ClipPlan]:
    """Returns the plans of a split.

    The plan of a clip does not depend on the number of clips, so a larger corpus begins with the clips of a smaller
    one. Emotions alternate from clip to clip. Every block of 8 emotions x 3 intensities x speakers of the split has
    each combination once, with different speakers in neighbouring clips.

    Args:
        split: One of `speakers.SPLITS`.
        num_clips: Number of clips in the split.
        seed: Seed of the corpus.
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


def make_clip(plan: ClipPlan, sentence: str | None = None, *, studio: bool = False) -> Clip:
    """Generates the speech and the motion of a clip.

    Args:
        plan: Plan of the clip, which determines everything random in it.
        sentence: Sentence to speak; None draws one of `SENTENCES`.
        studio: Whether the clip has neither a background nor a long silence before the speech.
    """
    key = [plan.seed, speakers.SPLITS.index(plan.split), plan.index]
    voice_rng, face_rng, room_rng = (np.random.default_rng(s) for s in np.random.SeedSequence(key).spawn(3))
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
    if room_rng.random() < _LONG_LEAD_RATE and not studio:
        lead_s += room_rng.uniform(0.5, 3.0)
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
    # The background comes last, because the motion follows the loudness and the pitch of the speech alone.
    if not studio:
        audio = background.add_background(audio, lead_s, room_rng)
    return Clip(audio, frames, visemes.frame_classes(segments, len(frames)), sentence)


def _punctuate(sentence: str, prosody: acoustics.Prosody, rng: np.random.Generator) -> str:
    """Replaces the full stop of a statement by the mark with the intonation of the emotion."""
    rising, exclaiming = rng.uniform(size=2) < (prosody.rising, prosody.exclaiming)
    if sentence.endswith("?") or not (rising or exclaiming):
        return sentence
    return sentence[:-1] + ("?" if rising else "!")
