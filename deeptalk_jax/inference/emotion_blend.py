"""Emotions asked for by name, intensity and weight, blended on the unit sphere of DEE's space.

happy                        all training clips of the emotion, whatever their intensity
happy@3                      intensity 0 to 3; between two levels, and between 0 = neutral and 1, in proportion
happy:0.8,surprised@2:0.2    a blend; what the weights lack to 1 is neutral, above 1 they count in proportion
"""

import math
import re
from typing import NamedTuple

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.stages.emotion_centroids import EmotionCentroids
from deeptalk_jax.types import EMOTIONS, NUM_INTENSITIES, Gaussian

NEUTRAL = "neutral"
_ITEM = re.compile(r"(?P<name>[^@:]+)(?:@(?P<intensity>[^@:]+))?(?::(?P<weight>[^@:]+))?")
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
    emotion, weight = _parse_item(text, text)
    if weight is not None:
        raise UserError(f"emotion {text!r} must have no weight")
    return emotion


def parse_blend(text: str) -> list[tuple[Emotion, float]]:
    """Reads `NAME[@INTENSITY][:WEIGHT]`, several with commas between; a weight that is not given is 1.

    Raises:
        UserError: an unknown name, an intensity that is no number from 0 to 3, a weight that is no number, negative
            or not finite, or no weight above 0.
    """
    pairs = [_parse_item(item, text) for item in text.split(",")]
    blend = [(emotion, 1.0 if weight is None else weight) for emotion, weight in pairs]
    if not any(weight for _, weight in blend):
        raise UserError(f"emotion {text!r}: no weight is above 0; {_KNOWN}")
    return blend


def _parse_item(item: str, text: str) -> tuple[Emotion, float | None]:
    match = _ITEM.fullmatch(item.strip())
    if not match:
        raise UserError(f"emotion {text!r}: {item!r} is not NAME[@INTENSITY][:WEIGHT]; {_KNOWN}")
    name, intensity, weight = match["name"].strip(), match["intensity"], match["weight"]
    if name not in EMOTIONS:
        raise UserError(f"emotion {text!r}: unknown name {name!r}; {_KNOWN}")
    level = None if intensity is None else _number(intensity, "intensity", text, NUM_INTENSITIES)
    return Emotion(name, level), None if weight is None else _number(weight, "weight", text)


_KNOWN = f"known: {', '.join(EMOTIONS)}"


def _number(value: str, what: str, text: str, highest: float = math.inf) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (0 <= number <= highest and math.isfinite(number)):
        expected = "0 or above" if highest == math.inf else f"from 0 to {highest}"
        raise UserError(f"emotion {text!r}: {what} {value!r} is no number {expected}; {_KNOWN}")
    return number


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
