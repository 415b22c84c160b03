"""Settings of the whole suite: 8 virtual CPU devices, strict ranks, one compilation cache."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=8"
    # Unoptimised code: compiling is most of the suite's time, running next to none.
    " --xla_backend_optimization_level=0"
)

import jax

from deeptalk_jax.cli import use_compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")
use_compilation_cache()

# Files that take minutes, the longest first: two workers then end at about the same time.
_LONG_FILES = ("test_stages.py", "test_api.py")


def pytest_collection_modifyitems(items):
    def place(item):
        return _LONG_FILES.index(item.path.name) if item.path.name in _LONG_FILES else len(_LONG_FILES)

    items.sort(key=place)
