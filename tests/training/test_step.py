"""The step on several devices, its watch for non-finite terms, its schedule: on a model of two numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from deeptalk_jax.training.mesh import make_mesh, replicated, shard_batch
from deeptalk_jax.training.optimiser import make_schedule
from deeptalk_jax.training.state import create_state, step_key
from deeptalk_jax.training.step import make_train_step

NAMES = ["fit", "gradient_norm", "loss", "noise"]


def loss_fn(params, model_state, frozen, batch, step, key):
    noise = jax.random.normal(key, ())
    fit = jnp.mean(jnp.square(batch["x"] * params["w"] - batch["y"] * frozen["scale"]))
    total = fit + 0.01 * noise * params["w"]
    return total, ({"seen": model_state["seen"] + jnp.sum(batch["x"])}, {"fit": fit, "noise": noise})


def run(num_devices, batches):
    mesh = make_mesh(num_devices)
    optimiser = optax.adam(0.1)
    variables = {"params": {"w": jnp.array(0.5)}, "seen": jnp.zeros(())}
    variables = {"params": variables["params"], "seen": variables["seen"]}
    state = jax.device_put(create_state(variables, optimiser, len(NAMES)), replicated(mesh))
    step = make_train_step(lambda p, s, *rest: loss_fn(p, s, *rest), optimiser, mesh, seed=3)
    frozen = jax.device_put({"scale": jnp.array(2.0)}, replicated(mesh))
    for batch in batches:
        state, metrics = step(state, frozen, shard_batch(batch, mesh))
    return state, metrics


def batches(num, bad=None):
    rng = np.random.default_rng(0)
    made = [{name: rng.standard_normal(8).astype(np.float32) for name in "xy"} for _ in range(num)]
    if bad is not None:
        made[bad]["y"][5] = np.nan
    return made


def test_eight_devices_equal_one():
    one, eight = run(1, batches(5)), run(8, batches(5))
    np.testing.assert_allclose(one[0].params["w"], eight[0].params["w"], rtol=1e-6)
    np.testing.assert_allclose(one[0].model_state["seen"], eight[0].model_state["seen"], rtol=1e-5)
    assert int(eight[0].step) == 5
    assert float(one[0].params["w"]) != 0.5


def test_first_broken_step_and_its_terms_are_remembered():
    state, _ = run(1, batches(4, bad=2))
    assert int(state.failed_step) == 2
    broken = dict(zip(NAMES, np.asarray(state.failed_terms), strict=True))
    assert broken == {"fit": True, "gradient_norm": True, "loss": True, "noise": False}
    healthy, _ = run(1, batches(4))
    assert int(healthy.failed_step) == -1


def test_keys_differ_by_step_and_repeat():
    keys = [jax.random.key_data(step_key(0, step)).tolist() for step in (0, 1, 1)]
    assert keys[0] != keys[1] == keys[2]


def schedule(**changes):
    config = ConfigDict(
        {
            "learning_rate": 1.0,
            "final_learning_rate": 0.1,
            "schedule": "cosine",
            "warmup_steps": 10,
            "decay_every_steps": 20,
            "decay_factor": 0.5,
        }
        | changes
    )
    return make_schedule(config, 110)


def test_schedules_by_hand():
    cosine = schedule()
    np.testing.assert_allclose(
        [cosine(0), cosine(5), cosine(10), cosine(60), cosine(110)], [0, 0.5, 1, 0.55, 0.1], rtol=1e-5
    )
    steps = schedule(schedule="step", warmup_steps=0)
    np.testing.assert_allclose([steps(0), steps(19), steps(20), steps(45)], [1, 1, 0.5, 0.25])
    constant = schedule(schedule="constant")
    np.testing.assert_allclose([constant(1), constant(100)], [0.1, 1.0], rtol=1e-6)
    with pytest.raises(ValueError, match="schedule='linear' is not one of"):
        schedule(schedule="linear")


def test_mesh_and_batches_that_do_not_fit():
    with pytest.raises(ValueError, match="num_devices=99, but there are 8"):
        make_mesh(99)
    with pytest.raises(ValueError, match="a batch of 6 rows does not divide over 8 devices"):
        shard_batch({"x": np.zeros(6)}, make_mesh(8))
