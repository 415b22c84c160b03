"""Sounds made from formulas."""

import numpy as np

SAMPLE_RATE_HZ = 16_000


def babble(seconds: float, seed: int = 0) -> np.ndarray:
    """Returns [s] samples at 16 kHz: syllables of changing pitch and loudness over a little noise."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = 140 + 60 * np.sin(2 * np.pi * 0.7 * time_s + seed)
    carrier = np.sign(np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ))
    loudness = np.clip(np.sin(2 * np.pi * (2.3 + 0.4 * seed) * time_s), 0, 1)
    noise = generator.normal(0, 0.01, len(time_s))
    return (0.2 * carrier * loudness + noise).astype(np.float32)
