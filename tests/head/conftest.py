import pytest

from deeptalk_jax.head.load import load_head


@pytest.fixture(scope="session")
def head():
    return load_head("procedural")
