"""Emotions asked for by name, intensity and weight, blended on the unit sphere of DEE's space.

happy                        all training clips of the emotion, whatever their intensity
happy@3                      intensity 0 to 3; between two levels, and between 0 = neutral and 1, in proportion
happy:0.8,surprised@2:0.2    a blend; what the weights lack to 1 is neutral, above 1 they count in proportion
"""

import math
import re
from typing import NamedTuple

import numpy as np

from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.blend import BlendReader
from deeptalk_jax.types import EMOTIONS, NUM_INTENSITIES, Gaussian

NEUTRAL = "neutral"
_READER = BlendReader("emotion", "NAME[@INTENSITY][:WEIGHT]", f"known: {', '.join(EMOTIONS)}")
_ITEM = re.compile(r"(?P<name>[^@]+)(?:@(?P<intensity>[^@]+))?")
# A mean shorter than this comes of emotions that point away from one another, and has no direction to speak of.
_SHORTEST_MEAN = 1e-3


class Emotion(NamedTuple):
    """A single emotion.

    Attributes:
        name: one of `types.EMOTIONS`.
        intensity: 0 (neutral) to 3; None stands for all training clips of the emotion.
    """

    name: str
    intensity: float | None = None


class Moments(NamedTuple):
    """Weighted sums of the moments of Gaussians: what is linear in the weights.

    Attributes:
        mean: `[..., d]`, not of unit length.
        variance: `[..., d]`.
    """

    mean: np.ndarray
    variance: np.ndarray

    def gaussian(self) -> Gaussian:
        """The Gaussian on the sphere, float32."""
        norm = np.linalg.norm(self.mean, axis=-1, keepdims=True)
        mean = self.mean / np.maximum(norm, 1e-8)
        return Gaussian(mean.astype(np.float32), np.log(self.variance).astype(np.float32))

    @classmethod
    def of(cls, gaussian: Gaussian) -> "Moments":
        """Moments of one Gaussian with weight 1."""
        return cls(np.float64(gaussian.mean), np.exp(np.float64(gaussian.log_variance)))


def parse_emotion(text: str) -> Emotion:
    """Reads `NAME` or `NAME@INTENSITY`.

    Raises:
        UserError: an unknown name, or an intensity that is no number from 0 to 3.
    """
    item, weight = _READER.item(text, text)
    if weight is not None:
        raise UserError(f"emotion {text!r} must have no weight")
    return _emotion(item, text)


def parse_blend(text: str) -> list[tuple[Emotion, float]]:
    """Reads `NAME[@INTENSITY][:WEIGHT]`, several with commas between; a weight that is not given is 1.

    Raises:
        UserError: an unknown name, an intensity that is no number from 0 to 3, a weight that is no number, negative
            or not finite, or no weight above 0.
    """
    return [(_emotion(item, text), weight) for item, weight in _READER.items(text)]


def _emotion(item: str, text: str) -> Emotion:
    match = _ITEM.fullmatch(item)
    if not match:
        raise _READER.malformed(text, item)
    name, intensity = match["name"].strip(), match["intensity"]
    if name not in EMOTIONS:
        raise _READER.error(text, f"unknown name {name!r}")
    level = None if intensity is None else _READER.number(intensity, "intensity", text, NUM_INTENSITIES)
    return Emotion(name, level)


class EmotionTable:
    """Names to moments.

    Args:
        centroids: of the emotions.
    """

    def __init__(self, centroids: EmotionCentroids):
        self._mean = np.float64(centroids.mean)
        self._variance = np.exp(np.float64(centroids.log_variance))
        self._num_clips = centroids.num_clips

    def gaussian(self, text: str) -> Gaussian:
        """Gaussian `[d]` of a blend.

        Raises:
            UserError: see `parse_blend` and `moments`.
        """
        return self.moments(parse_blend(text)).gaussian()

    def moments(self, blend: list[tuple[Emotion, float]]) -> Moments:
        """Moments `[d]` of a blend, its weights brought to 1 by neutral or by their sum.

        Raises:
            UserError: an emotion without training clips, or emotions that cancel out.
        """
        total = sum(weight for _, weight in blend)
        weights = np.zeros(self._num_clips.shape)
        for emotion, weight in blend:
            weights += weight / max(total, 1.0) * self._classes(emotion)
        if total < 1.0:
            weights += (1.0 - total) * self._classes(Emotion(NEUTRAL))
        mean = np.einsum("ei,eid->d", weights, self._mean)
        if np.linalg.norm(mean) < _SHORTEST_MEAN:
            names = ", ".join(emotion.name for emotion, _ in blend)
            raise UserError(f"the emotions {names} cancel out: no emotion lies between them")
        return Moments(mean, np.einsum("ei,eid->d", weights, self._variance))

    def _classes(self, emotion: Emotion) -> np.ndarray:
        """`[e, i]` shares of the classes in one emotion; sums to 1."""
        row, level = EMOTIONS.index(emotion.name), emotion.intensity
        shares = np.zeros(self._num_clips.shape)
        held = np.flatnonzero(self._num_clips[row])
        if not len(held):
            raise UserError(f"emotion {emotion.name!r}: the model was trained on no clip of it")
        if level is None or emotion.name == NEUTRAL:
            shares[row] = self._num_clips[row] / self._num_clips[row].sum()
            return shares
        if level < 1.0:
            shares += (1.0 - level) * self._classes(Emotion(NEUTRAL))
        for index, share in ((math.floor(level) - 1, 1.0 - level % 1.0), (math.floor(level), level % 1.0)):
            if 0 <= index < NUM_INTENSITIES:
                # A level without clips is stood for by the nearest that has some.
                shares[row, held[np.argmin(np.abs(held - index))]] += share
        return shares
