"""Settings of the whole suite, and the fixtures that several folders share.

Settings: 8 virtual CPU devices, strict rank promotion, one compilation cache. The fixtures wrap the plain modules of
`tests/support`, which tests also import directly; what is expensive is made once and shared by all workers.
"""

import importlib.util
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
# Number of threads of the CPU client. A virtual device that waits in a collective occupies one of them.
os.environ["NPROC"] = "32"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + (
    " --xla_force_host_platform_device_count=8"
    # No optimisation, because compiling takes most of the suite's time and running takes little.
    " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    " --xla_llvm_disable_expensive_passes=true --xla_cpu_parallel_codegen_split_count=1"
)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from filelock import FileLock

from deeptalk_jax.cli import use_compilation_cache
from deeptalk_jax.head.model import MASK_NAMES, HeadModel, HeadSurface

pytest.register_assert_rewrite("tests.support")
jax.config.update("jax_numpy_rank_promotion", "raise")
use_compilation_cache()

# Files that take minutes, the longest first, so that both workers finish at about the same time.
_LONG_FILES = ("test_stages.py", "test_published_parity.py", "test_pipeline.py", "test_generator.py")


def pytest_collection_modifyitems(items):
    def place(item):
        return _LONG_FILES.index(item.path.name) if item.path.name in _LONG_FILES else len(_LONG_FILES)

    items.sort(key=place)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """`(name, make) -> directory`: the first worker that needs it calls `make(directory)`; the others wait."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the directory of this run, above those of the workers

    def directory_of(name, make):
        directory, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                make(directory)
                done.touch()
        return directory

    return directory_of


@pytest.fixture(scope="session")
def data_dir(made_once):
    """Root directory of the datasets, with `synthetic_talk` as tests/support/corpus.py builds it; read-only."""
    from tests.support.corpus import build_corpus

    return made_once("corpus", build_corpus)


@pytest.fixture(scope="session")
def tiny_config(data_dir):
    """`(stage, upstream directory, **overrides) -> config` that trains a tiny model on the shared corpus."""
    from tests.support.tiny_stages import tiny_training_config

    def make(stage, upstream=None, **changes):
        return tiny_training_config(stage, data_dir, upstream, **changes)

    return make


@pytest.fixture(scope="session")
def trained(tiny_config, made_once):
    """Directory with the work directory of every stage, each trained for four steps; read-only."""
    from deeptalk_jax.assembly.stage_table import STAGES
    from deeptalk_jax.stages.run import train

    def make(directory):
        for stage in STAGES:
            train(tiny_config(stage, directory), directory / stage)

    return made_once("trained", make)


@pytest.fixture(scope="session")
def model_parts():
    """All parts of a tiny model directory with random weights, by stage name."""
    from tests.support.tiny_models import random_model_parts

    return random_model_parts()


@pytest.fixture(scope="session")
def model_directory(model_parts, tmp_path_factory):
    """A tiny model directory with random weights; read-only."""
    from deeptalk_jax.assembly.model_dir import save_model

    directory = tmp_path_factory.mktemp("tiny") / "model"
    save_model(directory, model_parts, head="procedural")
    return directory


@pytest.fixture(scope="session")
def model(model_directory):
    from deeptalk_jax.inference.api import DeepTalk

    return DeepTalk.load(model_directory)


@pytest.fixture(scope="session")
def babble():
    from tests.support.sounds import babble

    return babble


@pytest.fixture(scope="session")
def commands(tmp_path_factory):
    """Runs commands in forks of one process: `commands.run("train.py", *flags) -> (status, stdout, stderr)`."""
    from tests.support.commands import CommandServer

    server = CommandServer(tmp_path_factory.mktemp("streams"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def goldens():
    from tests.support.speech_encoders import Goldens

    return Goldens


@pytest.fixture(scope="session")
def golden_files():
    return Path(__file__).parent / "goldens"


@pytest.fixture(scope="session")
def jit():
    from tests.support.speech_encoders import quick_jit

    return quick_jit


@pytest.fixture(scope="session")
def make_encoder():
    from tests.support.speech_encoders import tiny_encoder

    return tiny_encoder


@pytest.fixture(scope="session")
def torch_writer():
    from tests.support.torch_files import write_torch

    return write_torch


@pytest.fixture(scope="session")
def pseudo():
    """The module tests/goldens/pseudo_weights.py, which draws deterministic weights and inputs."""
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
