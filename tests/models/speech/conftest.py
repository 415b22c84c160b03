"""Fixtures of the speech encoders' tests."""

import numpy as np
import pytest

from tests.support.speech_encoders import tiny_encoder


@pytest.fixture(scope="session", params=["wav2vec2", "wav2vec2_stable", "emotion2vec"])
def encoder(request):
    return tiny_encoder(request.param)


@pytest.fixture(scope="session")
def waveform():
    """Two clips of noise; the second one has a large offset."""
    rng = np.random.default_rng(7)
    return (0.1 * rng.standard_normal((2, 5003)) + np.array([[0.0], [0.3]])).astype(np.float32)
