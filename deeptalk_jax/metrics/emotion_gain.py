"""How strongly a face shows an emotion: gain and cosine against the corpus's own expression of it.

The expression of an emotion is the mean of the coefficients over the frames of its clips, minus that of neutral clips.
A gain of 1 is the strength of the corpus; the accuracy of a classifier says little about it, because a faint expression
can be recognised.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from deeptalk_jax.types import EXPRESSION_DIM


class Gain(NamedTuple):
    """Strength and direction of an expression.

    Attributes:
        gain: projection on the true expression over the length of the true expression; 1 is full strength.
        cosine: cosine of the angle with the true expression; 0 if there is no expression.
    """

    gain: float
    cosine: float


def mean_expression(motion: Float[np.ndarray, "t 53"]) -> Float[np.ndarray, " 50"]:
    """Returns the mean coefficients of the expression over the frames of a clip, float64."""
    return motion[:, :EXPRESSION_DIM].mean(axis=0, dtype=np.float64)


def emotion_gain(shown: Float[np.ndarray, " d"], truth: Float[np.ndarray, " d"]) -> Gain:
    """Compares the expression of an emotion with the true one; both are differences from neutral.

    Raises:
        ValueError: the true expression is zero.
    """
    length = np.linalg.norm(truth)
    if not length:
        raise ValueError("the true expression does not differ from neutral")
    along = float(shown @ truth / length)
    size = float(np.linalg.norm(shown))
    return Gain(along / float(length), along / size if size else 0.0)


def rising_share(shown: Float[np.ndarray, "n i d"], truth: Float[np.ndarray, " d"]) -> float:
    """Returns the share of sentences whose face grows with the intensity asked for, from each level to the next.

    Args:
        shown: difference from neutral of n sentences at i increasing intensities.
        truth: direction that the strength is measured along.
    """
    strength = shown @ truth
    return float(np.mean(np.all(np.diff(strength, axis=1) > 0, axis=1)))
