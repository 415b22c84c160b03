import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.model import MASK_NAMES, HeadModel, HeadSurface

GOLDENS = Path(__file__).parents[1] / "goldens"


@pytest.fixture(scope="session")
def head():
    return load_head("procedural")


@pytest.fixture(scope="session")
def synthetic_flame_arrays():
    spec = importlib.util.spec_from_file_location("pseudo_weights_of_head", GOLDENS / "pseudo_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.synthetic_flame()


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
