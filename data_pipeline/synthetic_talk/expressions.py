"""Facial motion besides speech: emotional expressions, blinks, brow emphasis and small noise.

The expressions are prototypes of the Facial Action Coding System (Ekman, Friesen and Hager, 2002, and EMFACS), given
here as action units: happiness 6+12, sadness 1+4+15+17, surprise 1+2+5+26, fear 1+2+4+5+7+20, disgust 9+10+15+17, anger
4+5+7+23+24, contempt 12+14 on one side. AU 26 of surprise (jaw drop) is a factor on the speaking jaw in
`motion.compose`, because a silent mouth stays closed in this corpus.
"""

import numpy as np

from data_pipeline.synthetic_talk.speakers import MotionStyle
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_RATE_HZ

# Action -> strength at full expression; an action named without its side applies to both sides.
PROTOTYPES = {
    "neutral": {},
    "happy": {"cheek_raise": 0.8, "lip_corner_pull": 0.9, "lid_tighten": 0.2, "lips_part": 0.12},
    "sad": {
        "inner_brow_raise": 0.9,
        "brow_lower": 0.35,
        "lip_corner_depress": 0.8,
        "chin_raise": 0.4,
        "lower_lip_protrude": 0.15,
        "eye_close": 0.12,
    },
    "surprised": {
        "inner_brow_raise": 0.95,
        "outer_brow_raise": 0.95,
        "upper_lid_raise": 0.8,
        "lips_part": 0.1,
    },
    "fear": {
        "inner_brow_raise": 0.8,
        "outer_brow_raise": 0.45,
        "brow_lower": 0.5,
        "upper_lid_raise": 0.8,
        "lid_tighten": 0.4,
        "lip_stretch": 0.7,
        "neck_tighten": 0.4,
    },
    "disgusted": {
        "nose_wrinkle": 0.95,
        "upper_lip_raise": 0.6,
        "lip_corner_depress": 0.35,
        "chin_raise": 0.3,
        "brow_lower": 0.35,
        "cheek_raise": 0.25,
        "nasolabial_deepen": 0.4,
    },
    "angry": {
        "brow_lower": 1.0,
        "upper_lid_raise": 0.5,
        "lid_tighten": 0.7,
        "lip_tighten": 0.6,
        "lip_press": 0.4,
        "nostril_dilate": 0.4,
    },
    "contempt": {"chin_raise": 0.15, "eye_close": 0.12, "lip_tighten": 0.1},
}
_CONTEMPT_ONE_SIDED = {
    "dimple": 0.95,
    "lip_corner_pull": 0.4,
}  # the other side has a tenth of these strengths
_CORNERS = ("lip_corner_pull", "lip_corner_depress", "dimple")
_NOISE_STD = 0.012
_BLINK = (0.45, 1.0, 0.9, 0.55, 0.2)  # closure per frame: closing takes 2 frames, opening 3


def sides(action: str) -> tuple[int, ...]:
    """Returns the indices of an action's coefficients: left and right, or the only one."""
    if action in ACTION_INDEX:
        return (ACTION_INDEX[action],)
    return ACTION_INDEX[f"{action}_left"], ACTION_INDEX[f"{action}_right"]


def prototype(emotion: str, style: MotionStyle) -> np.ndarray:
    """Returns a speaker's expression of an emotion at full strength, `[50]`."""
    face = np.zeros(EXPRESSION_DIM)
    for action, strength in PROTOTYPES[emotion].items():
        face[list(sides(action))] += strength
    if emotion == "contempt":
        for action, strength in _CONTEMPT_ONE_SIDED.items():
            left, right = sides(action)
            favoured, other = (left, right) if style.contempt_side > 0 else (right, left)
            face[favoured] += strength
            face[other] += 0.1 * strength
    for action in _CORNERS:
        left, right = sides(action)
        face[left] *= 1 + style.smile_asymmetry
        face[right] *= 1 - style.smile_asymmetry
    return face * style.expressiveness


def envelope(num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Draws the onset, apex and offset of an expression over time, `[t]` from 0 to about 1.1.

    The expression starts at a third to two thirds of the apex, reaches the apex within 0.2 to 0.6 s, varies slowly
    around it, and relaxes a little in the last 0.3 to 0.6 s.
    """
    time_s = (np.arange(num_frames) + 0.5) / MOTION_RATE_HZ
    onset_s, offset_s = rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.6)
    start, end = rng.uniform(0.35, 0.7), rng.uniform(0.5, 0.9)
    rise = start + (1 - start) * _smoothstep(time_s / onset_s)
    fall = end + (1 - end) * _smoothstep((time_s[-1] - time_s) / offset_s)
    wave_hz, phase = rng.uniform(0.2, 0.5), rng.uniform(0, 2 * np.pi)
    return rise * fall * (1 + 0.1 * np.sin(2 * np.pi * wave_hz * time_s + phase))


def blinks(num_frames: int, style: MotionStyle, rng: np.random.Generator) -> np.ndarray:
    """Draws the closure of both eyes, `[t]` from 0 to 1: blinks of 3 to 7 frames that start 2 to 6 s apart."""
    closure = np.zeros(num_frames)
    time_s = rng.uniform(0.0, style.blink_interval_s)
    while time_s * MOTION_RATE_HZ < num_frames:
        length = int(rng.integers(3, 8))
        shape = np.interp(np.linspace(0, len(_BLINK) - 1, length), np.arange(len(_BLINK)), _BLINK)
        shape /= shape.max()
        start = int(time_s * MOTION_RATE_HZ)
        stop = min(start + length, num_frames)
        closure[start:stop] = shape[: stop - start]
        time_s += float(np.clip(rng.normal(style.blink_interval_s, 1.0), 2.0, 6.0))
    return closure


def brow_emphasis(num_frames: int, times_s: np.ndarray, strengths: np.ndarray) -> np.ndarray:
    """Computes brow raises of about half a second around stressed vowels, `[t]`.

    Args:
        num_frames: Length of the clip in motion frames.
        times_s: `[n]` centres of the vowels, in seconds.
        strengths: `[n]` strength of the raise at each vowel.
    """
    frame_s = (np.arange(num_frames) + 0.5) / MOTION_RATE_HZ
    bumps = strengths * np.exp(-0.5 * ((frame_s[:, None] - times_s) / 0.14) ** 2)
    return bumps.max(axis=1, initial=0.0)


def noise(num_frames: int, num_channels: int, rng: np.random.Generator) -> np.ndarray:
    """Draws small slow noise with a standard deviation of 0.012, `[t, num_channels]`."""
    white = rng.standard_normal((num_frames + 8, num_channels))
    kernel = np.hanning(11)[1:-1]
    kernel /= np.sqrt(np.sum(kernel**2))
    smooth = np.stack([np.convolve(channel, kernel, mode="valid") for channel in white.T], axis=1)
    return _NOISE_STD * smooth


def _smoothstep(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, 0.0, 1.0)
    return x * x * (3 - 2 * x)
