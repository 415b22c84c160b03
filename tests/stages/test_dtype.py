"""The step of each stage in bfloat16: types of its matrix products, and a loss close to that of float32."""

import json

import jax
import numpy as np
import pytest

from deeptalk_jax.assembly.stage_table import STAGES
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.training.step import stage_step
from deeptalk_jax.training.trainer import Trainer

HALF = {"model.dtype": "bfloat16"}
_PRODUCTS = ("dot_general", "conv_general_dilated")
_SLOW = "deeptalk_stage2"  # takes minutes to compile; only its types are checked


def equations(jaxpr):
    """Yields the equations of a jaxpr and of all jaxprs inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "jaxpr") or hasattr(x, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def products(stage, config):
    """Returns the type names of the factors of each product of a step, and those of the new state."""
    frozen = stage.constants()
    _, initial_state, update = stage_step(stage, config, frozen)
    state = jax.eval_shape(initial_state, jax.random.key(0))
    traced, (new_state, _) = jax.make_jaxpr(update, return_shape=True)(state, frozen, stage.batch_shapes())
    found = [
        {variable.aval.dtype.name for variable in equation.invars}
        for equation in equations(traced.jaxpr)
        if equation.primitive.name in _PRODUCTS
    ]
    return found, {leaf.dtype.name for leaf in jax.tree.leaves(new_state)}


@pytest.mark.parametrize("name", STAGES)
def test_layers_compute_in_bfloat16_and_the_state_is_float32(trained, tiny_config, name):
    config = tiny_config(name, trained, **HALF)
    found, state_types = products(make_stage(config), config)
    assert state_types <= {"float32", "int32", "bool"}
    in_half = sum("bfloat16" in types for types in found)
    # The others are losses, logits, pooling, FER features and, in lip_reader, skinning and rendering.
    assert in_half > (0.3 if name == "lip_reader" else 0.65) * len(found)


def test_float32_stages_compute_in_float32(trained, tiny_config):
    config = tiny_config("motion_prior", trained)
    found, _ = products(make_stage(config), config)
    assert set.union(*found) == {"float32"}


@pytest.mark.parametrize("name", [name for name in STAGES if name != _SLOW])
def test_bfloat16_stays_near_float32(trained, tiny_config, name):
    """The first loss differs by rounding only; later losses diverge when another code is chosen."""
    rows = (trained / name / "metrics.jsonl").read_text().splitlines()  # of the same steps in float32
    exact = [json.loads(row)["train/loss"] for row in rows]
    config = tiny_config(name, trained, **HALF)
    trainer = Trainer(make_stage(config), config)
    rough = [float(trainer.next_step()["loss"]) for _ in range(config.num_steps)]
    assert exact != rough
    np.testing.assert_allclose(rough[0], exact[0], rtol=0.03)
    np.testing.assert_allclose(np.mean(rough), np.mean(exact), rtol=0.03)
    np.testing.assert_allclose(rough, exact, rtol=0.15)
