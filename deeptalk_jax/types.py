"""Sizes, rates and names that all parts of the project share.

Axis letters, used in shape comments and in jaxtyping annotations:

    b  batch                    k  code of a codebook
    t  motion frame (25 Hz)     d  feature
    s  audio sample, or speech feature (50 Hz)
    v  vertex                   n  Monte-Carlo sample
"""

from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array

AUDIO_RATE_HZ = 16_000
MOTION_RATE_HZ = 25
SPEECH_FEATURE_RATE_HZ = 50
SAMPLES_PER_FRAME = AUDIO_RATE_HZ // MOTION_RATE_HZ  # 640
INT16_SCALE = np.float32(1 / 32768)  # factor from int16 samples to [-1, 1)

EXPRESSION_DIM = 50
JAW_POSE_DIM = 3
MOTION_DIM = EXPRESSION_DIM + JAW_POSE_DIM  # 53: FLAME expression, then jaw axis-angle in radians

EMOTIONS = ("neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry", "contempt")
NUM_INTENSITIES = 3
# Other words for the emotions. The names above are those of the published code, which mixes nouns and adjectives (fear,
# angry), so nobody can guess them; data sets (RAVDESS, CREMA-D, MEAD) and people use either form. Words that could mean
# two of the emotions, such as "calm" or "annoyed", are left out.
EMOTION_SYNONYMS = {
    "none": "neutral",
    "neutrality": "neutral",
    "happiness": "happy",
    "joy": "happy",
    "joyful": "happy",
    "sadness": "sad",
    "surprise": "surprised",
    "fearful": "fear",
    "afraid": "fear",
    "scared": "fear",
    "disgust": "disgusted",
    "anger": "angry",
    "contemptuous": "contempt",
}

# Groups of sounds that look alike on the lips, after Fisher (1968). Their sounds are listed in
# data_pipeline/synthetic_talk/visemes.py.
VISEME_CLASSES = (
    "silence",
    "bilabial",
    "labiodental",
    "dental",
    "alveolar",
    "sibilant",
    "postalveolar",
    "velar",
    "rounded",
    "spread",
    "mid",
    "open",
)


class SpeechFeatures(NamedTuple):
    """Output of a speech encoder for a padded batch of waveforms.

    Attributes:
        values: `[b, s, d]` features; padded positions are zero.
        mask: `[b, s]` bool, true at valid positions.
    """

    values: Array
    mask: Array


class Gaussian(NamedTuple):
    """A diagonal Gaussian in the emotion space.

    Attributes:
        mean: `[b, d]`, or `[d]` for a single Gaussian, with unit norm.
        log_variance: logarithm of the variance of each dimension, the same shape, unconstrained.
    """

    mean: Array
    log_variance: Array
