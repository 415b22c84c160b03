"""Sinusoidal position codes (Vaswani et al., NeurIPS 2017, section 3.5)."""

import numpy as np


def sinusoidal_positions(length: int, dim: int) -> np.ndarray:
    """`[length, dim]` float32: sine on even channels, cosine on odd ones, base 10000.

    Raises:
        ValueError: `dim` is odd.
    """
    if dim % 2:
        raise ValueError(f"sinusoidal positions need an even number of channels, got {dim}")
    position = np.arange(length, dtype=np.float64)[:, None]
    frequency = np.exp(-np.log(10_000.0) * np.arange(0, dim, 2) / dim)
    code = np.empty((length, dim), np.float64)
    code[:, 0::2] = np.sin(position * frequency)
    code[:, 1::2] = np.cos(position * frequency)
    return code.astype(np.float32)
