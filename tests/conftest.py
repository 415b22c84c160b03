"""Settings of the whole suite: 8 virtual CPU devices, strict ranks, one compilation cache; shared fixtures."""

import importlib.util
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Threads of the CPU client: a virtual device that waits for others in a collective holds one.
os.environ["NPROC"] = "32"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=8"
    # Unoptimised code: compiling is most of the suite's time, running next to none.
    " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.cli import use_compilation_cache
from deeptalk_jax.head.model import MASK_NAMES, HeadModel, HeadSurface

jax.config.update("jax_numpy_rank_promotion", "raise")
use_compilation_cache()

# Files that take minutes, the longest first: two workers then end at about the same time.
_LONG_FILES = ("test_stages.py", "test_published_parity.py", "test_many.py", "test_generator.py")


def pytest_collection_modifyitems(items):
    def place(item):
        return _LONG_FILES.index(item.path.name) if item.path.name in _LONG_FILES else len(_LONG_FILES)

    items.sort(key=place)


@pytest.fixture(scope="session")
def pseudo():
    """The generator of deterministic weights and inputs, tests/goldens/pseudo_weights.py."""
    path = Path(__file__).parent / "goldens" / "pseudo_weights.py"
    spec = importlib.util.spec_from_file_location("pseudo_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def synthetic_flame_arrays(pseudo):
    return pseudo.synthetic_flame()


@pytest.fixture(scope="session")
def synthetic_flame_head(synthetic_flame_arrays):
    arrays = synthetic_flame_arrays
    num_vertices = len(arrays["v_template"])
    surface = HeadSurface(
        faces=arrays["f"].astype(np.int32),
        materials=np.zeros(num_vertices, np.uint8),
        albedo=np.ones((num_vertices, 3), np.float32),
        masks={name: np.zeros(0, np.int32) for name in MASK_NAMES},
    )
    return HeadModel(
        template=jnp.asarray(arrays["v_template"]),
        expression_directions=jnp.asarray(arrays["shapedirs"][..., 300:350]),
        shape_directions=jnp.asarray(arrays["shapedirs"][..., :100]),
        pose_directions=jnp.asarray(np.moveaxis(arrays["posedirs"], -1, 0)),
        joint_regressor=jnp.asarray(arrays["J_regressor"]),
        skinning_weights=jnp.asarray(arrays["weights"]),
        surface=surface,
        name="synthetic FLAME",
    )
