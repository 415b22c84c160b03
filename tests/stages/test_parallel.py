"""The step of each stage gives the same numbers on one device, on eight with jit and split weights, and with pmap."""

import os

import jax
import numpy as np
import pytest

from deeptalk_jax.assembly.stage_table import STAGES
from deeptalk_jax.stages.base import make_stage
from deeptalk_jax.training.trainer import Trainer

NUM_STEPS = 10
FULL = os.environ.get("DEEPTALK_FULL_TESTS") == "1"
WAYS = {
    "jit_8": {"num_devices": 8, "fsdp_devices": 2},
    "pmap_8": {"num_devices": 8, "parallel": "pmap"},
}
if FULL:
    WAYS |= {
        "jit_2": {"num_devices": 2},
        "pmap_1": {"num_devices": 1, "parallel": "pmap"},
        "pmap_2": {"num_devices": 2, "parallel": "pmap"},
    }
# The step of stage 2 takes minutes to compile on 8 devices.
_STAGES = [
    pytest.param(
        stage,
        marks=pytest.mark.skipif(
            stage == "deeptalk_stage2" and not FULL, reason="takes minutes; DEEPTALK_FULL_TESTS=1 runs it"
        ),
    )
    for stage in STAGES
]
_INDIVISIBLE = "lip_reader"  # its weights have odd sizes, which cannot be split
_UPSTREAM = "motion_prior"  # an upstream part, which no later stage trains


def leaves(tree):
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


@pytest.fixture(scope="module")
def after_steps(trained, tiny_config):
    """Returns `(stage, options) -> (trainer, metrics)`, which takes `NUM_STEPS` steps."""

    def run(stage, **options):
        if stage == "deeptalk_stage2":
            options["loss.lip_reading_every"] = 1  # each of eight devices has one window
        config = tiny_config(stage, trained, num_steps=NUM_STEPS, validate_every_steps=1, **options)
        trainer = Trainer(make_stage(config), config)
        for _ in range(NUM_STEPS):
            metrics = trainer.next_step()
        return trainer, jax.device_get(metrics)

    return run


@pytest.mark.parametrize("stage", _STAGES)
def test_all_ways_to_run_a_step_give_the_same_parameters(after_steps, stage, monkeypatch):
    if stage == "dee":  # also covers training that starts from given weights
        monkeypatch.setattr(
            STAGES[stage].load_class(), "pretrained_params", lambda _: {"shift": np.float32(3.5)}
        )
    monkeypatch.setattr("deeptalk_jax.training.mesh.MIN_SPLIT_SIZE", 64)  # these weights are tiny
    one, expected = after_steps(stage)
    assert not any(_UPSTREAM in name for name in leaves(one.state.params)), "an upstream part is trained"
    before = leaves(one.variables())
    validation = one.validation_loss()
    assert {"gradient_norm", *validation} == set(one.names)
    for way, options in WAYS.items():
        many, found = after_steps(stage, **options)
        split = [x for x in jax.tree.leaves(many.state.params) if not x.sharding.is_fully_replicated]
        assert bool(split) == ("fsdp_devices" in options and stage != _INDIVISIBLE)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=f"{way}: {name}")
        for name, value in many.validation_loss().items():
            np.testing.assert_allclose(
                value, validation[name], rtol=1e-3, atol=1e-5, err_msg=f"{way}: {name}"
            )
        for name, value in leaves(many.variables()).items():
            np.testing.assert_allclose(value, before[name], rtol=1e-5, atol=1e-5, err_msg=f"{way}: {name}")
