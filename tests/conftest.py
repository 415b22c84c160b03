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
