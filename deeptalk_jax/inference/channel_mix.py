"""Mixes the channels of a sound down to one, also if they cancel.

A swapped wire or a karaoke effect inverts one of two channels. Their mean is then silence, and the face would not move.
"""

import numpy as np
from absl import logging
from jaxtyping import Float

# Channels cancel if their mean has less than this share of the power of a mean of independent channels.
_CANCELLING_POWER = 0.1


class ChannelMix:
    """Averages channels block by block and measures whether they cancel.

    Attributes:
        loudest: index of the channel with the most power.
    """

    def __init__(self):
        self._mono = []
        self._power = 0.0
        self._channel_power = np.zeros(0)

    def add(self, block: np.ndarray) -> None:
        """Adds a block `[s, c]`."""
        mono = block.mean(axis=1, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            power = np.sum(np.square(block, dtype=np.float64), axis=0)
            self._power += float(np.sum(np.square(mono, dtype=np.float64)))
        if len(power) > len(self._channel_power):
            self._channel_power = np.pad(self._channel_power, (0, len(power) - len(self._channel_power)))
        self._channel_power[: len(power)] += power
        self._mono.append(mono)

    def mean(self) -> np.ndarray:
        """Returns the mean over the channels, `[s]`."""
        return np.concatenate(self._mono) if self._mono else np.zeros(0, np.float32)

    @property
    def loudest(self) -> int:
        """Index of the channel with the most power."""
        return int(np.argmax(self._channel_power))

    def cancels(self, name: str) -> bool:
        """Returns whether the mean is far quieter than a mean of independent channels, and logs a warning if it is."""
        channels = len(self._channel_power)
        independent = float(self._channel_power.sum()) / max(channels, 1) ** 2
        cancels = channels > 1 and np.isfinite(independent) and self._power < _CANCELLING_POWER * independent
        if cancels:
            logging.warning("%s: its channels cancel one another; channel %d is used", name, self.loudest + 1)
        return bool(cancels)


def mix_channels(samples: Float[np.ndarray, "s c"], name: str) -> Float[np.ndarray, " s"]:
    """Returns the mean over the channels or, with a warning, the loudest channel if they cancel."""
    mix = ChannelMix()
    mix.add(samples)
    return np.ascontiguousarray(samples[:, mix.loudest]) if mix.cancels(name) else mix.mean()
