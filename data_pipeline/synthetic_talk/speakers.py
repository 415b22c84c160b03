"""The 32 synthetic speakers: voices, splits, identities and motion styles.

Speakers with even numbers have low voices, those with odd numbers high voices. Splits are by speaker: 24 train, 4
validation and 4 test, each with as many low as high voices. The motion styles (`MotionStyle`) make the speaker identity
informative for the model. They are small enough that motion of a speaker outside the training set can be predicted.
"""

import functools
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")
HELD_OUT = {"validation": (6, 15, 22, 31), "test": (2, 11, 18, 27)}
UNKNOWN_IDENTITY = -1

_STYLE_SEED = 53  # fixed, so that the motion styles are the same in every corpus


class Voice(NamedTuple):
    """Voice of a speaker in calm speech.

    Attributes:
        name: eSpeak language and variant.
        pitch: eSpeak pitch, 0 to 100; 50 is the default of the variant, and 4 more is about a semitone.
        rate_wpm: Speaking rate in words per minute, before the factor `clip._RATE_FACTOR`.
    """

    name: str
    pitch: float
    rate_wpm: float


class MotionStyle(NamedTuple):
    """Speaker-specific style of facial motion.

    Attributes:
        articulation: Factor on the shapes of the lips.
        jaw: Factor on the opening of the jaw.
        expressiveness: Factor on emotional expressions.
        smile_asymmetry: Asymmetry of the mouth corners, from -1 (right side only) to 1 (left side only).
        brow_raise: Action strength of the brows at rest: raised if positive, lowered if negative.
        mouth_corners: Action strength of the mouth corners at rest: pulled up if positive, down if negative.
        contempt_side: Side of the face that shows contempt: 1 for the left, -1 for the right.
        blink_interval_s: Mean time between blinks, in seconds.
    """

    articulation: float
    jaw: float
    expressiveness: float
    smile_asymmetry: float
    brow_raise: float
    mouth_corners: float
    contempt_side: int
    blink_interval_s: float


VOICES = (
    Voice("en-us+m1", 50, 165),
    Voice("en-us+f2", 50, 165),
    Voice("en-us+m3", 52, 160),
    Voice("en-gb-x-rp+f3", 50, 165),
    Voice("en-gb-x-rp+m2", 46, 160),
    Voice("en-us+Annie", 44, 165),
    Voice("en-us+Gene", 50, 168),
    Voice("en-us+linda", 47, 165),
    Voice("en-us-nyc+m4", 54, 178),
    Voice("en-gb-x-rp+f4", 52, 170),
    Voice("en-us+Andy", 53, 175),
    Voice("en-us+f5", 49, 172),
    Voice("en-gb-x-gbclan+m5", 50, 162),
    Voice("en-us+shelby", 50, 160),
    Voice("en-us+m7", 56, 165),
    Voice("en-gb-x-rp+belinda", 46, 165),
    Voice("en-gb-x-rp+Lee", 52, 168),
    Voice("en-us+f1", 55, 170),
    Voice("en-gb-x-rp+m6", 50, 165),
    Voice("en-us+Andrea", 43, 140),
    Voice("en-us+Michael", 47, 160),
    Voice("en-gb-x-gbclan+f2", 56, 165),
    Voice("en-us+edward", 55, 165),
    Voice("en-us-nyc+f4", 58, 172),
    Voice("en-us+boris", 54, 158),
    Voice("en-us+aunty", 52, 168),
    Voice("en-us+norbert", 58, 166),
    Voice("en-us+grandma", 48, 165),
    Voice("en-gb-x-rp+adam", 47, 164),
    Voice("en-us+Alicia", 42, 185),
    Voice("en-us+paul", 60, 165),
    Voice("en-us+f3", 56, 160),
)
NUM_SPEAKERS = len(VOICES)


def split_speakers(split: str) -> tuple[int, ...]:
    """Returns the speakers of a split, in order.

    Args:
        split: One of `SPLITS`.

    Raises:
        ValueError: The split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if split in HELD_OUT:
        return HELD_OUT[split]
    held_out = {speaker for speakers in HELD_OUT.values() for speaker in speakers}
    return tuple(speaker for speaker in range(NUM_SPEAKERS) if speaker not in held_out)


def identity_of(speaker: int) -> int:
    """Returns the identity index of a speaker: its index among the training speakers, or `UNKNOWN_IDENTITY`."""
    train = split_speakers("train")
    return train.index(speaker) if speaker in train else UNKNOWN_IDENTITY


@functools.cache
def motion_style(speaker: int) -> MotionStyle:
    """Returns the motion style of a speaker, which is the same in every corpus."""
    rng = np.random.default_rng([_STYLE_SEED, speaker])
    return MotionStyle(
        articulation=rng.uniform(0.85, 1.15),
        jaw=rng.uniform(0.82, 1.2),
        expressiveness=rng.uniform(1.0, 1.35),
        smile_asymmetry=rng.uniform(-0.25, 0.25),
        brow_raise=rng.uniform(-0.08, 0.12),
        mouth_corners=rng.uniform(-0.08, 0.08),
        contempt_side=int(rng.choice((-1, 1))),
        blink_interval_s=rng.uniform(2.5, 5.0),
    )
