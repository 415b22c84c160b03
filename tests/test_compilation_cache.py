"""The directory of compiled programs, which tools and the Python API share."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from deeptalk_jax.cli import use_compilation_cache
from deeptalk_jax.inference.api import DeepTalk

_SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)


@pytest.fixture(autouse=True)
def no_cache_yet(monkeypatch):
    """A process whose user has chosen no cache; afterwards the cache of the suite is back."""
    before = {name: getattr(jax.config, name) for name in _SETTINGS}
    monkeypatch.delenv("DEEPTALK_CACHE_DIR", raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def used():
    return jax.config.jax_compilation_cache_dir


def test_the_default_is_in_the_cache_directory_of_the_user_and_bounded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache()
    assert used() == str(tmp_path / "deeptalk_jax" / "jax") and Path(used()).is_dir()
    assert jax.config.jax_compilation_cache_max_size == 2**30


def test_without_xdg_the_default_is_in_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    use_compilation_cache()
    assert used() == str(tmp_path / ".cache" / "deeptalk_jax" / "jax")


@pytest.mark.parametrize("place", ["gs://bucket/jax_cache", "given"])
def test_a_named_directory_is_used_without_a_bound(tmp_path, monkeypatch, place):
    wanted = place if "://" in place else str(tmp_path / place)
    monkeypatch.setenv("DEEPTALK_CACHE_DIR", wanted)
    bound = jax.config.jax_compilation_cache_max_size
    use_compilation_cache()
    assert used() == wanted and jax.config.jax_compilation_cache_max_size == bound


def test_loading_a_model_sets_the_cache_also_after_a_compilation(tmp_path, monkeypatch, model_directory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.jit(lambda x: x * 2 + 1)(jnp.ones(3)).block_until_ready()  # JAX finds that there is no cache
    DeepTalk.load(model_directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: x * 3 + 1)(jnp.ones(3)).block_until_ready()
    assert list((tmp_path / "deeptalk_jax" / "jax").glob("*-cache"))


def test_a_directory_that_the_user_has_set_in_jax_is_kept(tmp_path, monkeypatch, model_directory):
    monkeypatch.setenv("DEEPTALK_CACHE_DIR", str(tmp_path / "other"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    DeepTalk.load(model_directory)
    assert used() == str(tmp_path / "own") and not (tmp_path / "other").exists()


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "DEEPTALK_CACHE_DIR"])
def test_a_directory_that_cannot_be_made_is_no_error(tmp_path, monkeypatch, model_directory, variable):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "cache"))
    DeepTalk.load(model_directory)
    assert used() is None
