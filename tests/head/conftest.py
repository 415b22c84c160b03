"""Fixtures of the head tests: the embedded head, and golden outputs of smplx for a synthetic FLAME model."""

from pathlib import Path

import numpy as np
import pytest

from deeptalk_jax.head.load import load_head

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="session")
def head():
    return load_head("procedural")


@pytest.fixture(scope="session")
def golden():
    with np.load(GOLDENS / "flame_lbs.npz") as file:
        return {name: file[name] for name in file.files}
