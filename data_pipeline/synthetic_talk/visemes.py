"""Visemes: mouth shapes for eSpeak's IPA phonemes, as target and dominance of every articulator.

A phoneme string is split into single sounds (a diphthong into two vowels, an affricate into stop and fricative, "ɑːɹ"
into vowel and r), each with its share of the duration. The shapes follow the usual viseme classes (Fisher, 1968; Cohen
and Massaro, 1993): bilabials close the lips, labiodentals tuck the lower lip under the teeth, /u w/ pucker the lips,
/i/ stretches them, open vowels lower the jaw. Jaw angles are for calm speech.
"""

from typing import NamedTuple

import numpy as np

from data_pipeline.synthetic_talk.espeak import PAUSE, Phoneme
from deeptalk_jax.types import MOTION_RATE_HZ, VISEME_CLASSES

ARTICULATORS = (
    "jaw",  # radians
    "closure",  # at 1 the lips touch, for any angle of the jaw
    "part",
    "pucker",
    "funnel",
    "tuck",  # lower lip under the upper teeth
    "stretch",
    "upper_raise",
    "lower_depress",
    "protrude",
    "tongue_tip",
    "tongue_out",
)
ARTICULATOR_INDEX = {name: index for index, name in enumerate(ARTICULATORS)}

# Rates of the dominance functions per second (anticipation, carry-over): the jaw is slow, lip closures are fast.
_RATES = {"jaw": (15.0, 14.0), "closure": (32.0, 32.0), "tuck": (24.0, 24.0), "pucker": (10.0, 11.0)}
_DEFAULT_RATES = (15.0, 16.0)
ANTICIPATION_PER_S = np.array([_RATES.get(name, _DEFAULT_RATES)[0] for name in ARTICULATORS])
CARRYOVER_PER_S = np.array([_RATES.get(name, _DEFAULT_RATES)[1] for name in ARTICULATORS])

SILENCE = "_"
_GLOTTAL_STOP = "ʔ"
_SHORTEST_PAUSE_S = 0.08  # a shorter break is a glottal stop or the hold of a consonant; the lips keep moving
_STRESS_MARKS = "ˈˌ"
_PRIMARY_STRESS = "ˈ"
_LENGTH_MARKS = "ː:"
_OTHER_MARKS = "̩ʲ̪"  # syllabic, palatalised and dental: not visible on the lips


class Viseme(NamedTuple):
    """A mouth shape.

    Attributes:
        targets: Target of each named articulator; all others have target 0.
        strong: Dominance of the named articulators.
        weak: Dominance of the other articulators; a small value lets them follow neighbouring sounds.
        share: Relative duration of this sound in a phoneme of several sounds.
    """

    targets: dict[str, float]
    strong: float
    weak: float
    share: float


def _vowel(jaw: float, strong: float = 1.0, **targets: float) -> Viseme:
    return Viseme({"jaw": jaw, **targets}, strong, 0.6 * strong, 1.0)


def _consonant(jaw: float, strong: float, weak: float = 0.12, **targets: float) -> Viseme:
    return Viseme({"jaw": jaw, **targets}, strong, weak, 0.6)


_BILABIAL = Viseme({"jaw": 0.04, "closure": 1.0, "part": 0.0, "upper_raise": 0.0}, 4.0, 0.15, 0.6)
_LABIODENTAL = _consonant(0.035, 3.0, tuck=0.9, upper_raise=0.2, part=0.1)
_ALVEOLAR = _consonant(0.045, 0.8, tongue_tip=0.5, part=0.3)
_SIBILANT = _consonant(0.02, 1.6, tongue_tip=0.2, part=0.45, stretch=0.25, lower_depress=0.2)
_POSTALVEOLAR = _consonant(0.035, 1.6, funnel=0.7, protrude=0.4, part=0.35)
_VELAR = _consonant(0.075, 0.5, part=0.25)
_DENTAL = _consonant(0.05, 1.2, tongue_out=0.45, part=0.3)
_ROUNDED_GLIDE = _consonant(0.04, 1.8, pucker=0.9, part=0.1)
_FREE = _consonant(0.08, 0.12, part=0.2)  # h and the glottal stop take the shape of the sounds around them
_HIGH_FRONT = _vowel(0.055, stretch=0.6, part=0.35, lower_depress=0.15)
_NEAR_HIGH_FRONT = _vowel(0.075, stretch=0.35, part=0.35, lower_depress=0.1)
_SCHWA = _vowel(0.095, strong=0.7, part=0.3)
_LOW_FRONT = _vowel(0.21, stretch=0.25, part=0.3, upper_raise=0.15, lower_depress=0.3)
_HIGH_BACK = _vowel(0.055, pucker=0.85, funnel=0.2, part=0.1)

VISEMES = {
    SILENCE: Viseme({}, 1.4, 1.4, 1.0),
    **dict.fromkeys("pbm", _BILABIAL),
    **dict.fromkeys("fv", _LABIODENTAL),
    **dict.fromkeys("td", _ALVEOLAR),
    "n": _consonant(0.05, 0.7, tongue_tip=0.45, part=0.3),
    "l": _consonant(0.075, 0.7, tongue_tip=0.55, part=0.3),
    "ɾ": _consonant(0.07, 0.5, tongue_tip=0.45, part=0.3),
    "r": _consonant(0.06, 0.7, tongue_tip=0.45, part=0.25),
    **dict.fromkeys("sz", _SIBILANT),
    **dict.fromkeys("ʃʒ", _POSTALVEOLAR),
    **dict.fromkeys("kɡŋx", _VELAR),
    **dict.fromkeys("θð", _DENTAL),
    **dict.fromkeys("wʍ", _ROUNDED_GLIDE),
    "ɹ": _consonant(0.055, 1.0, funnel=0.45, pucker=0.2, part=0.2),
    "j": _consonant(0.05, 0.8, stretch=0.45, part=0.3),
    **dict.fromkeys("hʔ", _FREE),
    "i": _HIGH_FRONT,
    "ɪ": _NEAR_HIGH_FRONT,
    "ᵻ": _NEAR_HIGH_FRONT,
    "e": _vowel(0.11, stretch=0.4, part=0.35, lower_depress=0.2),
    "ɛ": _vowel(0.145, stretch=0.3, part=0.35, lower_depress=0.25),
    "æ": _LOW_FRONT,
    "a": _vowel(0.225, stretch=0.12, part=0.3, lower_depress=0.25),
    "ɑ": _vowel(0.235, part=0.3, lower_depress=0.2),
    "ɒ": _vowel(0.19, funnel=0.3, part=0.2, lower_depress=0.1),
    "ɔ": _vowel(0.17, funnel=0.5, pucker=0.2, part=0.15),
    "o": _vowel(0.125, funnel=0.4, pucker=0.45, part=0.1),
    "ʊ": _vowel(0.08, pucker=0.5, funnel=0.25, part=0.15),
    "u": _HIGH_BACK,
    "ʉ": _HIGH_BACK,
    "ʌ": _vowel(0.155, part=0.35, lower_depress=0.15),
    "ɐ": _vowel(0.12, strong=0.8, part=0.3, lower_depress=0.1),
    "ə": _SCHWA,
    "ɜ": _vowel(0.105, funnel=0.25, part=0.25),
    "ɚ": _vowel(0.085, strong=0.8, funnel=0.3, part=0.25),
}


# Class of `types.VISEME_CLASSES` -> sounds in it.
CLASS_SOUNDS = {
    "silence": SILENCE,
    "bilabial": "pbm",
    "labiodental": "fv",
    "dental": "θð",
    "alveolar": "tdnlɾr",
    "sibilant": "sz",
    "postalveolar": "ʃʒɹ",
    "velar": "kɡŋxhʔ",
    "rounded": "wʍuʊʉoɔ",
    "spread": "iɪᵻej",
    "mid": "əɛɜɚɐ",
    "open": "æaɑɒʌ",
}
_CLASS_OF = {sound: VISEME_CLASSES.index(name) for name, sounds in CLASS_SOUNDS.items() for sound in sounds}


class Segments(NamedTuple):
    """Sounds in time with their mouth shapes.

    Attributes:
        sounds: `n` single IPA letters, or "_" for silence.
        stressed: `[n]` bool, true where a phoneme with primary stress starts.
        starts_s: `[n]` start of each sound, in seconds.
        ends_s: `[n]` end of each sound, in seconds.
        targets: `[n, p]` target of each articulator.
        peaks: `[n, p]` dominance of each articulator inside the core.
    """

    sounds: tuple[str, ...]
    stressed: np.ndarray
    starts_s: np.ndarray
    ends_s: np.ndarray
    targets: np.ndarray
    peaks: np.ndarray


def split_phoneme(symbol: str) -> list[tuple[str, float]]:
    """Splits a phoneme into sounds and their relative durations.

    A length mark multiplies the duration of the sound before it by 1.5.

    Args:
        symbol: IPA in eSpeak's spelling; `PAUSE` gives silence.

    Raises:
        ValueError: A letter has no viseme.
    """
    if symbol == PAUSE:
        return [(SILENCE, 1.0)]
    sounds: list[tuple[str, float]] = []
    for letter in symbol:
        if letter in _STRESS_MARKS or letter in _OTHER_MARKS:
            continue
        if letter in _LENGTH_MARKS and sounds:
            sounds[-1] = (sounds[-1][0], 1.5 * sounds[-1][1])
        elif letter in VISEMES and letter != SILENCE:
            sounds.append((letter, VISEMES[letter].share))
        else:
            raise ValueError(f"no viseme for {letter!r} (U+{ord(letter):04X}) in the phoneme {symbol!r}")
    return sounds


def segment(phonemes: tuple[Phoneme, ...], *, lead_s: float, total_s: float) -> Segments:
    """Places the sounds of an utterance in time, with silence before and after it.

    Args:
        phonemes: Phonemes in order, without gaps; times count from the start of the utterance.
        lead_s: Silence before the utterance, in seconds.
        total_s: Length of the clip, in seconds.

    Raises:
        ValueError: A phoneme has a letter without a viseme.
    """
    sounds, stressed, edges_s = [SILENCE], [False], [0.0, lead_s]
    for index, phoneme in enumerate(phonemes):
        parts = split_phoneme(phoneme.symbol)
        if _is_break(phonemes, index):
            parts = [(_GLOTTAL_STOP, 1.0)]
        if not parts:  # a phoneme of marks only prolongs the sound before it
            edges_s[-1] += phoneme.end_s - phoneme.start_s
        total_weight = sum(weight for _, weight in parts)
        for position, (sound, weight) in enumerate(parts):
            sounds.append(sound)
            stressed.append(position == 0 and _PRIMARY_STRESS in phoneme.symbol)
            edges_s.append(edges_s[-1] + (phoneme.end_s - phoneme.start_s) * weight / total_weight)
    sounds.append(SILENCE)
    stressed.append(False)
    edges_s.append(max(total_s, edges_s[-1]))
    edges = np.array(edges_s)
    return Segments(
        tuple(sounds),
        np.array(stressed),
        edges[:-1],
        edges[1:],
        np.stack([_TARGETS[sound] for sound in sounds]),
        np.stack([_PEAKS[sound] for sound in sounds]),
    )


def frame_classes(segments: Segments, num_frames: int) -> np.ndarray:
    """Returns the viseme class at the middle of each motion frame, `[t]` uint8 indices into `types.VISEME_CLASSES`."""
    middles_s = (np.arange(num_frames) + 0.5) / MOTION_RATE_HZ
    index = np.minimum(np.searchsorted(segments.ends_s, middles_s, side="right"), len(segments.sounds) - 1)
    return np.array([_CLASS_OF[sound] for sound in segments.sounds], np.uint8)[index]


def _is_break(phonemes: tuple[Phoneme, ...], index: int) -> bool:
    """Returns whether a phoneme is a pause inside speech that is too short for the mouth to close."""
    phoneme = phonemes[index]
    around = phonemes[max(index - 1, 0)], phonemes[min(index + 1, len(phonemes) - 1)]
    short = phoneme.end_s - phoneme.start_s < _SHORTEST_PAUSE_S
    return phoneme.symbol == PAUSE and short and all(neighbour.symbol != PAUSE for neighbour in around)


_TARGETS = {s: np.array([v.targets.get(a, 0.0) for a in ARTICULATORS]) for s, v in VISEMES.items()}
_PEAKS = {
    s: np.array([v.strong if a in v.targets else v.weak for a in ARTICULATORS]) for s, v in VISEMES.items()
}
