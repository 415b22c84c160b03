"""The average of weights: by hand, next to training, on several devices, and in what a run exports."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeptalk_jax.training import average
from deeptalk_jax.training.mesh import make_mesh, state_sharding
from deeptalk_jax.training.runner import make_runner
from deeptalk_jax.training.state import create_state
from deeptalk_jax.training.step import make_update

LOSS_NAMES = ["gradient_norm", "loss"]


def loss_fn(params, model_state, constants, batch, step, key):
    fit = jnp.mean(jnp.square(batch["x"] @ params["w"] - batch["y"])) + jnp.sum(params["fixed"])
    return fit, ({"seen": model_state["seen"] + 1.0}, {})


def run(decay, num_steps, *, num_devices=1, parallel="jit", bad=None, **options):
    """Takes steps of AdamW on a weight `[6, 4]`, and returns the states before and after each step, on the host."""
    mesh = make_mesh(num_devices, options.pop("fsdp_devices", 1))
    optimiser = average.keep_average(optax.adamw(0.1), decay)
    rng = np.random.default_rng(0)
    variables = {
        "params": {"w": jnp.asarray(rng.standard_normal((6, 4)), jnp.float32), "fixed": jnp.ones(3)},
        "seen": jnp.zeros(()),
    }
    state = create_state(variables, optimiser, len(LOSS_NAMES), ("fixed",))
    state = jax.device_put(state, state_sharding(mesh, state))
    runner = make_runner(parallel, make_update(loss_fn, optimiser, 0, ("fixed",), **options), mesh, state, {})
    states = [jax.device_get(state)]
    for step in range(num_steps):
        batch = {"x": rng.standard_normal((8, 6)), "y": rng.standard_normal((8, 4))}
        batch = {name: x.astype(np.float32) for name, x in batch.items()}
        if step == bad:
            batch["x"][0, 0] = np.nan
        state, _ = runner.run(state, {}, runner.place(batch))
        states.append(jax.device_get(state))
    return states, state


def test_three_steps_by_hand():
    """The first update copies the weights; the next two keep 1/10, and min(0.15, 2/11) = 0.15 of the average."""
    states, _ = run(0.15, 3)
    w = [state.params["w"] for state in states]
    expected = 0.15 * (0.1 * w[1] + 0.9 * w[2]) + 0.85 * w[3]
    found = average.trained_variables(states[3])
    np.testing.assert_allclose(found["params"]["w"], expected, rtol=1e-6)
    np.testing.assert_array_equal(found["params"]["fixed"], np.ones(3))
    assert found["seen"] == 3
    assert found["params"]["w"].dtype == np.float32
    np.testing.assert_array_equal(average.trained_variables(states[1])["params"]["w"], w[1])
    np.testing.assert_array_equal(average.trained_variables(states[0])["params"]["w"], w[0])


def test_the_decay_rises_to_its_limit():
    decays = [float(average.decay_after(jnp.array(n), 0.9)) for n in (0, 1, 2, 80, 81, 82, 10_000)]
    np.testing.assert_allclose(decays, [0, 1 / 10, 2 / 11, 80 / 89, 0.9, 0.9, 0.9], rtol=1e-6)


def test_the_average_changes_no_step_and_holds_no_frozen_parameters():
    """Without an average, the optimiser and so the layout of checkpoints are as if there were none."""
    (*_, plain), _ = run(0.0, 5)
    (*_, averaged), _ = run(0.9, 5)
    adam, kept = averaged.optimiser_state
    jax.tree.map(np.testing.assert_array_equal, averaged.replace(optimiser_state=adam), plain)
    assert kept.average.keys() == {"w"}
    assert not np.allclose(kept.average["w"], averaged.params["w"], rtol=1e-3)
    optimiser = optax.adam(0.1)
    assert average.keep_average(optimiser, 0.0) is optimiser
    assert average.trained_variables(plain)["params"] is plain.params


def test_a_skipped_step_does_not_count():
    (*_, before, after), _ = run(0.9, 3, bad=2, skip_nonfinite=True)
    jax.tree.map(np.testing.assert_array_equal, after.optimiser_state, before.optimiser_state)
    assert after.step == 3


@pytest.mark.parametrize("ways", [{}, {"parallel": "pmap"}, {"fsdp_devices": 2}], ids=["jit", "pmap", "fsdp"])
def test_eight_devices_equal_one(ways, monkeypatch):
    monkeypatch.setattr("deeptalk_jax.training.mesh.MIN_SPLIT_SIZE", 8)
    (*_, one), _ = run(0.9, 4)
    (*_, eight), on_devices = run(0.9, 4, num_devices=8, **ways)
    kept = on_devices.optimiser_state[1].average["w"]
    assert kept.sharding.is_fully_replicated == ("fsdp_devices" not in ways)
    found, expected = (average.trained_variables(state)["params"]["w"] for state in (eight, one))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
