"""The training step on several devices, non-finite terms, schedules and parameter patterns, on tiny models."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from deeptalk_jax.collectives import global_mean, global_sum
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.training.mesh import (
    make_mesh,
    replicated,
    shard_batch,
    sharding_table,
    split_axis,
    state_sharding,
)
from deeptalk_jax.training.optimiser import join_frozen, make_optimiser, make_schedule, split_frozen
from deeptalk_jax.training.runner import jit_step, make_runner
from deeptalk_jax.training.state import create_state, step_key
from deeptalk_jax.training.step import REMAT, decode_audio, make_update

NAMES = ["fit", "gradient_norm", "loss", "noise"]


def loss_fn(params, model_state, constants, batch, step, key):
    noise = jax.random.normal(key, ())
    fit = global_mean(jnp.square(batch["x"] * params["w"] - batch["y"] * constants["scale"]))
    total = fit + 0.01 * noise * params["w"]
    seen = model_state["seen"] + global_sum(jnp.sum(batch["x"]))
    return total, ({"seen": seen}, {"fit": fit, "noise": noise})


def run(num_devices, batches, parallel="jit", **options):
    mesh = make_mesh(num_devices)
    optimiser = optax.adam(0.1)
    variables = {"params": {"w": jnp.array(0.5)}, "seen": jnp.zeros(())}
    state = jax.device_put(create_state(variables, optimiser, len(NAMES)), replicated(mesh))
    constants = jax.device_put({"scale": jnp.array(2.0)}, replicated(mesh))
    update = make_update(lambda p, s, *rest: loss_fn(p, s, *rest), optimiser, seed=3, **options)
    runner = make_runner(parallel, update, mesh, state, constants)
    for batch in batches:
        state, metrics = runner.run(state, constants, runner.place(batch))
    return state, metrics


def batches(num, bad=None):
    rng = np.random.default_rng(0)
    made = [{name: rng.standard_normal(8).astype(np.float32) for name in "xy"} for _ in range(num)]
    if bad is not None:
        made[bad]["y"][5] = np.nan
    return made


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_eight_devices_equal_one(parallel):
    one, eight = run(1, batches(5)), run(8, batches(5), parallel)
    np.testing.assert_allclose(one[0].params["w"], eight[0].params["w"], rtol=1e-6)
    np.testing.assert_allclose(one[0].model_state["seen"], eight[0].model_state["seen"], rtol=1e-5)
    assert int(eight[0].step) == 5
    assert float(one[0].params["w"]) != 0.5


def test_the_first_step_with_non_finite_terms_is_recorded():
    state, _ = run(1, batches(4, bad=2))
    assert int(state.failed_step) == 2
    broken = dict(zip(NAMES, np.asarray(state.failed_terms), strict=True))
    assert broken == {"fit": True, "gradient_norm": True, "loss": True, "noise": False}
    healthy, _ = run(1, batches(4))
    assert int(healthy.failed_step) == -1


def test_a_skipped_step_changes_only_the_step_count():
    state, metrics = run(8, batches(4, bad=3), skip_nonfinite=True)
    before, _ = run(8, batches(3), skip_nonfinite=True)
    assert np.isnan(metrics["loss"])
    assert (int(state.step), int(before.step), int(state.failed_step)) == (4, 3, -1)
    jax.tree.map(np.testing.assert_array_equal, state.replace(step=before.step), before)
    later, metrics = run(8, batches(4, bad=2), skip_nonfinite=True)
    assert np.isfinite(metrics["loss"])
    assert float(later.params["w"]) != float(before.params["w"])  # steps after the skipped one count


def test_int16_audio_becomes_float32():
    sound = np.array([[-32768, -1, 0, 1, 32767]], np.int16)
    decoded = decode_audio({"audio": jnp.asarray(sound), "viseme": jnp.asarray([3], jnp.int32)})
    np.testing.assert_array_equal(decoded["audio"], sound.astype(np.float32) * np.float32(1 / 32768))
    assert decoded["viseme"].dtype == jnp.int32


def test_step_keys_depend_on_seed_and_step_only():
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


def test_schedules_equal_hand_computed_rates():
    cosine = schedule()
    np.testing.assert_allclose(
        [cosine(0), cosine(5), cosine(10), cosine(60), cosine(110)], [0, 0.5, 1, 0.55, 0.1], rtol=1e-5
    )
    steps = schedule(schedule="step", warmup_steps=0)
    np.testing.assert_allclose([steps(0), steps(19), steps(20), steps(45)], [1, 1, 0.5, 0.25])
    constant = schedule(schedule="constant")
    np.testing.assert_allclose([constant(1), constant(100)], [0.1, 1.0], rtol=1e-6)
    with pytest.raises(
        ConfigError, match=r"optimiser.schedule='linear': expected one of constant, cosine, step"
    ):
        schedule(schedule="linear")


PARAMS = {"tower": {"layer_0": {"w": 1.0, "b": 2.0}, "layer_1": {"w": 3.0}}, "scale": 4.0}


def test_split_and_join_of_frozen_parameters():
    trained, frozen = split_frozen(PARAMS, ("tower/layer_0/*", "scale"))
    assert trained == {"tower": {"layer_1": {"w": 3.0}}}
    assert frozen == {"tower": {"layer_0": {"w": 1.0, "b": 2.0}}, "scale": 4.0}
    assert join_frozen(trained, frozen) == PARAMS
    assert split_frozen(PARAMS, ()) == (PARAMS, {})


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ("scale", "towr/*"),
            "optimiser.frozen: 'towr/\\*' matches no parameter; expected .* begin with: scale, tower",
        ),
        (("tower/*", "s*"), r"optimiser.frozen=\('tower/\*', 's\*'\): expected .* no pattern matches"),
    ],
)
def test_patterns_that_match_nothing_or_everything_are_rejected(patterns, message):
    with pytest.raises(ConfigError, match=message):
        split_frozen(PARAMS, patterns)


def optimiser_config(**changes):
    schedule = {"learning_rate": 0.1, "schedule": "constant", "warmup_steps": 0, "epsilon": 1e-8}
    return ConfigDict(
        schedule | {"weight_decay": 0.0, "max_gradient_norm": 0.0, "rate_factors": ()} | changes
    )


def test_rate_factors_scale_the_update_of_each_layer():
    """The first step of Adam has the size of the learning rate, whatever the gradient."""
    factors = (("tower/layer_0/w", 0.5), ("tower/*", 0.25))
    optimiser = make_optimiser(optimiser_config(rate_factors=factors), 10)
    params = jax.tree.map(jnp.float32, PARAMS)
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    found = jax.tree.map(lambda x: round(float(x), 4), updates)
    layers = {"layer_0": {"w": -0.05, "b": -0.025}, "layer_1": {"w": -0.025}}
    assert found == {"tower": layers, "scale": -0.1}
    with pytest.raises(ConfigError, match=r"optimiser.rate_factors: 'head/\*' matches no parameter"):
        make_optimiser(optimiser_config(rate_factors=(("head/*", 0.5),)), 10).init(params)


WIDTH, ROWS, DEPTH = 64, 256, 6


def deep_step(frozen_patterns=(), num_devices=1, **options):
    """Returns the state before and after a step of a network of `DEPTH` layers, and the bytes of its temporaries."""

    def loss_fn(params, model_state, constants, batch, step, key):
        x = batch["x"]
        for index in range(DEPTH):
            x = jnp.tanh(x @ params[f"layer_{index}"]["w"])
        return jnp.mean(jnp.square(x)), (model_state, {})

    mesh = make_mesh(num_devices, num_devices)
    optimiser = make_optimiser(optimiser_config(weight_decay=0.1, epsilon=1e-3), 10)
    keys = jax.random.split(jax.random.key(0), DEPTH)
    weights = {
        f"layer_{i}": {"w": 0.2 * jax.random.normal(key, (WIDTH, WIDTH))} for i, key in enumerate(keys)
    }
    state = create_state({"params": weights}, optimiser, 2, frozen_patterns)
    state = jax.device_put(state, state_sharding(mesh, state))
    batch = shard_batch({"x": np.random.default_rng(0).standard_normal((ROWS, WIDTH), np.float32)}, mesh)
    update = make_update(loss_fn, optimiser, 0, frozen_patterns, **options)
    step = jit_step(update, mesh, state, {}).lower(state, {}, batch).compile()
    before = jax.device_get(state)
    return before, step(state, {}, batch)[0], step.memory_analysis().temp_size_in_bytes


def test_frozen_layers_stay_unchanged_and_take_no_memory():
    """Frozen layers need neither Adam's moments nor activations for their gradients."""
    before, after, lean = deep_step(("layer_[0-3]/*",))
    for index in range(DEPTH):
        same = np.array_equal(before.params[f"layer_{index}"]["w"], after.params[f"layer_{index}"]["w"])
        assert same == (index < 4), index
    held = sum(leaf.size for leaf in jax.tree.leaves(after.optimiser_state) if leaf.ndim)
    assert held == 2 * 2 * WIDTH**2  # two moments of two layers
    _, _, full = deep_step(())
    activation_bytes = 4 * ROWS * WIDTH
    assert full - lean >= 3 * activation_bytes  # the fourth is always there, for the layer being computed


def test_large_arrays_are_split_over_the_fsdp_axis():
    assert split_axis((3, 8192), 2) == 1
    assert split_axis((16384, 3), 2) == 0
    assert split_axis((128, 127), 2) is None  # too small to split
    assert split_axis((129, 129), 2) is None  # no axis divides evenly
    assert split_axis((8192, 8192), 1) is None
    mesh = make_mesh(8, 4)
    tree = {"large": np.zeros((64, 512), np.float32), "small": np.zeros(3, np.float32)}
    shardings = state_sharding(mesh, tree)
    table = sharding_table(tree, shardings).splitlines()
    assert [line.split() for line in table] == [
        ["large", "(64,", "512)", "axis", "1", "0.033", "MB"],
        ["1", "arrays", "whole", "on", "every", "device", "0.000", "MB"],
    ]
    shard = jax.device_put(tree, shardings)["large"].addressable_shards[0]
    assert shard.data.shape == (64, 128)


def test_training_with_split_weights_equals_training_with_whole_ones(monkeypatch):
    monkeypatch.setattr("deeptalk_jax.training.mesh.MIN_SPLIT_SIZE", 1)
    _, whole, _ = deep_step()
    _, split, _ = deep_step(num_devices=4)
    assert split.params["layer_0"]["w"].addressable_shards[0].data.size == WIDTH**2 / 4
    moments = [x for x in jax.tree.leaves(split.optimiser_state) if x.ndim == 2]
    assert {x.addressable_shards[0].data.size for x in moments} == {WIDTH**2 / 4}
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), whole.params, split.params
    )


def test_accumulation_over_parts_equals_the_whole_batch():
    """Mutable collections pass from part to part, as if the parts were batches."""
    whole, _ = run(1, batches(3))
    for devices, parallel in ((1, "jit"), (2, "jit"), (2, "pmap")):
        parts, metrics = run(devices, batches(3), parallel, accumulate_steps=4)
        assert np.isfinite(metrics["loss"])
        np.testing.assert_allclose(parts.model_state["seen"], whole.model_state["seen"], rtol=1e-5)
    _, whole, _ = deep_step()
    _, parts, _ = deep_step(accumulate_steps=8)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), whole.params, parts.params
    )
    with pytest.raises(ConfigError, match="accumulate_steps=3: expected a divisor of the 8 rows"):
        run(1, batches(1), accumulate_steps=3)
    with pytest.raises(ConfigError, match="accumulate_steps=0: expected at least 1"):
        run(1, batches(1), accumulate_steps=0)


def test_accumulation_takes_less_memory():
    assert deep_step(accumulate_steps=8)[2] < 0.6 * deep_step()[2]


def test_rematerialisation_keeps_no_attention_scores_and_changes_no_gradient():
    """The test reads the residuals of the backward pass, because the CPU compiler merges what is computed twice."""
    rows, length, width = 4, 16, 8

    def loss_fn(params, model_state, constants, batch, step, key):
        x = batch["x"]
        for weights in params["w"]:
            x = jnp.einsum("btd,de->bte", x, weights)
            x = jnp.einsum("bqk,bkd->bqd", jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", x, x)), x)
        return jnp.mean(jnp.square(x)), (model_state, {})

    rng = np.random.default_rng(0)
    params = {"w": 0.3 * rng.standard_normal((2, width, width), np.float32)}
    batch = {"x": rng.standard_normal((rows, length, width), np.float32)}
    optimiser = make_optimiser(optimiser_config(epsilon=1e-3), 10)
    found = {}
    for remat, policy in REMAT.items():
        wrapped = jax.checkpoint(loss_fn, policy=policy) if policy else loss_fn
        _, backward, _ = jax.vjp(lambda p, f=wrapped: f(p, {}, {}, batch, 0, None), params, has_aux=True)
        kept = {leaf.shape for leaf in jax.tree.leaves(backward)}
        assert ((rows, length, length) in kept) == (remat == "none")
        assert (rows, length, width) in kept
        state = create_state({"params": params}, optimiser, 2)
        found[remat] = jax.jit(make_update(loss_fn, optimiser, 0, remat=remat))(state, {}, batch)[0].params
    np.testing.assert_allclose(found["products"]["w"], found["none"]["w"], rtol=1e-5, atol=1e-7)


def test_unknown_options_of_the_step_are_rejected():
    with pytest.raises(ConfigError, match="parallel='threads': expected one of jit, pmap"):
        run(1, batches(1), "threads")
    with pytest.raises(ConfigError, match="remat='all': expected one of none, products"):
        run(1, batches(1), remat="all")
    with pytest.raises(ConfigError, match="fsdp_devices=2: expected 1 with parallel='pmap'"):
        make_runner("pmap", None, make_mesh(8, 2), {}, {})


def test_devices_and_rows_must_divide():
    with pytest.raises(ConfigError, match="num_devices=99: expected at most 8"):
        make_mesh(99)
    with pytest.raises(ConfigError, match="fsdp_devices=3: expected a divisor of the 8 devices"):
        make_mesh(8, 3)
    for parallel in ("jit", "pmap"):
        with pytest.raises(
            ConfigError, match=r"a batch has 6 rows for the 8 devices .* expected a multiple of 8"
        ):
            run(8, [{"x": np.zeros(6)}], parallel)
