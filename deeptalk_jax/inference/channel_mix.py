"""Channels of a sound to one, without losing a sound whose channels cancel.

A swapped wire or a karaoke effect inverts one channel of two. Their mean is then silence, and the face would not move.
"""

import numpy as np
from absl import logging
from jaxtyping import Float

# Channels cancel where their mean has less than this share of the power that the mean of independent channels has.
_CANCELLING_POWER = 0.1


class ChannelMix:
    """Averages channels block by block and measures whether they cancel.

    Attributes:
        loudest: number of the channel with the most power.
    """

    def __init__(self):
        self._mono = []
        self._power = 0.0
        self._channel_power = np.zeros(0)

    def add(self, block: np.ndarray) -> None:
        """Takes a block `[s, c]`."""
        mono = block.mean(axis=1, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            power = np.sum(np.square(block, dtype=np.float64), axis=0)
            self._power += float(np.sum(np.square(mono, dtype=np.float64)))
        if len(power) > len(self._channel_power):
            self._channel_power = np.pad(self._channel_power, (0, len(power) - len(self._channel_power)))
        self._channel_power[: len(power)] += power
        self._mono.append(mono)

    def mean(self) -> np.ndarray:
        """`[s]` mean over the channels."""
        return np.concatenate(self._mono) if self._mono else np.zeros(0, np.float32)

    @property
    def loudest(self) -> int:
        """Number of the channel with the most power, from 0."""
        return int(np.argmax(self._channel_power))

    def cancels(self, name: str) -> bool:
        """Whether the mean is far quieter than the mean of independent channels would be; logs a warning if so."""
        channels = len(self._channel_power)
        independent = float(self._channel_power.sum()) / max(channels, 1) ** 2
        cancels = channels > 1 and np.isfinite(independent) and self._power < _CANCELLING_POWER * independent
        if cancels:
            logging.warning("%s: its channels cancel one another; channel %d is used", name, self.loudest + 1)
        return bool(cancels)


def mix_channels(samples: Float[np.ndarray, "s c"], name: str) -> Float[np.ndarray, " s"]:
    """Returns the mean over the channels, or the loudest channel, with a warning, where they cancel."""
    mix = ChannelMix()
    mix.add(samples)
    return np.ascontiguousarray(samples[:, mix.loudest]) if mix.cancels(name) else mix.mean()
