"""Emotions given by name, intensity and weight, blended on the unit sphere of DEE's emotion space.

happy                        the mean over all training clips of the emotion, of any intensity
happy@3                      an intensity from 0 (neutral) to 3, interpolated between the trained levels 1, 2 and 3
happy:0.8,surprised@2:0.2    a blend; neutral fills weights up to a sum of 1, larger sums are scaled to 1

Names may be written in any case and by the synonyms of `types.EMOTION_SYNONYMS`, such as joy or anger.
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.blend_grammar import BlendReader
from deeptalk_jax.types import EMOTION_SYNONYMS, EMOTIONS, NUM_INTENSITIES, Gaussian

NEUTRAL = "neutral"
_READER = BlendReader("emotion", "NAME[@INTENSITY][:WEIGHT]", f"known: {', '.join(EMOTIONS)}")
_ITEM = re.compile(r"(?P<name>[^@]+)(?:@(?P<intensity>[^@]+))?")
# Opposite emotions blend to a mean that is shorter than this, whose direction is not meaningful.
_SHORTEST_MEAN = 1e-3


class Emotion(NamedTuple):
    """A single emotion.

    Attributes:
        name: one of `types.EMOTIONS`.
        intensity: 0 (neutral) to 3; None takes all training clips of the emotion.
    """

    name: str
    intensity: float | None = None


class Moments(NamedTuple):
    """Weighted sums of the moments of Gaussians, which unlike Gaussians on the sphere are linear in the weights.

    Attributes:
        mean: `[..., d]`, not of unit length.
        variance: `[..., d]`.
    """

    mean: np.ndarray
    variance: np.ndarray

    def gaussian(self) -> Gaussian:
        """Returns the Gaussian with its mean projected to the unit sphere, float32."""
        norm = np.linalg.norm(self.mean, axis=-1, keepdims=True)
        mean = self.mean / np.maximum(norm, 1e-8)
        return Gaussian(mean.astype(np.float32), np.log(self.variance).astype(np.float32))

    @classmethod
    def of(cls, gaussian: Gaussian) -> "Moments":
        """Returns the moments of one Gaussian with weight 1."""
        return cls(np.float64(gaussian.mean), np.exp(np.float64(gaussian.log_variance)))


def parse_emotion(text: str) -> Emotion:
    """Reads `NAME` or `NAME@INTENSITY`.

    Raises:
        UserError: the name is unknown, a weight is given, or the intensity is not a number from 0 to 3.
    """
    item, weight = _READER.item(text, text)
    if weight is not None:
        raise UserError(f"emotion {text!r} must not have a weight; expected NAME[@INTENSITY]")
    return _emotion(item, text)


def parse_blend(text: str) -> list[tuple[Emotion, float]]:
    """Reads items `NAME[@INTENSITY][:WEIGHT]`, separated by commas; a weight that is not given is 1.

    Raises:
        UserError: a name is unknown, an intensity is not a number from 0 to 3, a weight is not a finite number, 0 or
            above, or no weight is above 0.
    """
    return [(_emotion(item, text), weight) for item, weight in _READER.items(text)]


def blend_text(weights: Mapping[str, float]) -> str:
    """Writes a mapping of `NAME[@INTENSITY]` to weights, such as `{"happy": 0.8, "surprised": 0.2}`, as a blend.

    Raises:
        UserError: the mapping is empty, a name is not text, or a weight is not a number.
    """
    if not weights:
        raise UserError("an emotion as a mapping needs at least one name, as in {'happy': 0.8}; got {}")
    for name, weight in weights.items():
        if not isinstance(name, str) or isinstance(weight, (str, bool)) or np.ndim(weight):
            raise UserError(
                f"an emotion as a mapping needs names with numbers, as in {{'happy': 0.8}}; got {name!r}: {weight!r}"
            )
    return ",".join(f"{name}:{weight}" for name, weight in weights.items())


def _emotion(item: str, text: str) -> Emotion:
    match = _ITEM.fullmatch(item)
    if not match:
        raise _READER.malformed(text, item)
    written, intensity = match["name"].strip(), match["intensity"]
    name = EMOTION_SYNONYMS.get(written.lower(), written.lower())
    if name not in EMOTIONS:
        raise _READER.error(text, f"unknown name {written!r}")
    level = None if intensity is None else _READER.number(intensity, "intensity", text, NUM_INTENSITIES)
    return Emotion(name, level)


class EmotionTable:
    """Maps blends of named emotions to moments.

    Args:
        centroids: centroids of the emotions in DEE's space.
    """

    def __init__(self, centroids: EmotionCentroids):
        self._mean = np.float64(centroids.mean)
        self._variance = np.exp(np.float64(centroids.log_variance))
        self._num_clips = centroids.num_clips

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the emotions that have training clips."""
        return tuple(name for name, counts in zip(EMOTIONS, self._num_clips, strict=True) if counts.any())

    def gaussian(self, text: str) -> Gaussian:
        """Returns the Gaussian `[d]` of a blend.

        Raises:
            UserError: the text cannot be read, see `parse_blend`, or the blend has no direction, see `moments`.
        """
        return self.moments(parse_blend(text)).gaussian()

    def moments(self, blend: list[tuple[Emotion, float]]) -> Moments:
        """Returns the moments `[d]` of a blend; neutral fills weights up to a sum of 1, larger sums are scaled to 1.

        Raises:
            UserError: an emotion has no training clips, or the emotions cancel out.
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
            raise UserError(f"the emotions {names} cancel out; blend fewer of them or change their weights")
        return Moments(mean, np.einsum("ei,eid->d", weights, self._variance))

    def _classes(self, emotion: Emotion) -> np.ndarray:
        """Returns the weights `[e, i]` of all classes in one emotion; they sum to 1."""
        row, level = EMOTIONS.index(emotion.name), emotion.intensity
        shares = np.zeros(self._num_clips.shape)
        held = np.flatnonzero(self._num_clips[row])
        if not len(held):
            raise UserError(f"emotion {emotion.name!r}: the model was trained without clips of this emotion")
        if level is None or emotion.name == NEUTRAL:
            shares[row] = self._num_clips[row] / self._num_clips[row].sum()
            return shares
        if level < 1.0:
            shares += (1.0 - level) * self._classes(Emotion(NEUTRAL))
        for index, share in ((math.floor(level) - 1, 1.0 - level % 1.0), (math.floor(level), level % 1.0)):
            if 0 <= index < NUM_INTENSITIES:
                # The nearest level that has clips replaces a level without clips.
                shares[row, held[np.argmin(np.abs(held - index))]] += share
        return shares
