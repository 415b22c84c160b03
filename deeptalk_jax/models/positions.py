"""Sinusoidal position codes (Vaswani et al., NeurIPS 2017, section 3.5).

Neither Flax nor JAX provides them.
"""

import numpy as np

from deeptalk_jax.errors import ConfigError


def sinusoidal_positions(length: int, dim: int) -> np.ndarray:
    """Returns `[length, dim]` float32: sines in even channels, cosines in odd channels, base 10000.

    Raises:
        ConfigError: `dim` is odd.
    """
    if dim % 2:
        raise ConfigError(f"dim={dim}: expected an even number of channels for sinusoidal positions")
    position = np.arange(length, dtype=np.float64)[:, None]
    frequency = np.exp(-np.log(10_000.0) * np.arange(0, dim, 2) / dim)
    code = np.empty((length, dim), np.float64)
    code[:, 0::2] = np.sin(position * frequency)
    code[:, 1::2] = np.cos(position * frequency)
    return code.astype(np.float32)
