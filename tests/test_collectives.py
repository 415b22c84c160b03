"""Collectives under jit and under pmap, and the functions that keep rows on their devices."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax import collectives
from deeptalk_jax.collectives import side_by_side
from deeptalk_jax.training.mesh import batch_sharding, make_mesh
from deeptalk_jax.training.pmap_runner import spanning

FILTER = np.arange(24, dtype=np.float32).reshape(3, 2, 4)


def convolve(x):
    return {
        "y": jax.lax.conv_general_dilated(x, FILTER, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    }


def test_side_by_side_moves_no_rows_between_devices():
    batches = [np.random.default_rng(seed).normal(size=(16, 5, 2)).astype(np.float32) for seed in range(3)]
    rows = batch_sharding(make_mesh())

    def compiled(function):
        return jax.jit(function, in_shardings=rows, out_shardings=rows).lower(batches).compile()

    found = compiled(lambda batches: side_by_side(convolve, batches))
    for result, batch in zip(found(batches), batches, strict=True):
        np.testing.assert_allclose(result["y"], convolve(batch)["y"], rtol=1e-5, atol=1e-5)
    assert "all-" not in found.as_text()

    def mapped(batches):
        return list(jnp.unstack(jax.vmap(convolve)(jnp.stack(batches))["y"]))

    assert "all-gather" in compiled(mapped).as_text(), "jax.vmap can replace side_by_side"


def test_collectives_under_pmap_equal_those_of_the_global_batch():
    """8 devices hold 2 rows each; the results of all devices are those of one device with 16 rows."""
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    draw = partial(jax.random.normal, jax.random.key(0))

    def everything(x):
        return {
            "global_sum": collectives.global_sum(jnp.sum(x)),
            "global_mean": collectives.global_mean(x),
            "global_rows": collectives.global_rows(x),
            "local_rows": collectives.local_rows(collectives.global_rows(x)),
            "row_numbers": collectives.row_numbers(len(x)),
            "draw_rows": collectives.draw_rows(draw, x.shape),
            # Every device differentiates the same global loss.
            "mean_gradients": collectives.mean_gradients(
                jax.grad(lambda w: collectives.global_mean(jnp.square(w * x)))(2.0)
            ),
        }

    def on_each_device(x):
        with spanning("data"):
            return everything(x)

    expected = everything(x)
    found = jax.pmap(on_each_device, axis_name="data")(x.reshape(8, 2, 3))
    replaceable = {name for name, value in vars(collectives).items() if hasattr(value, "__wrapped__")}
    assert replaceable - {"over_mesh", "replaced_by"} == expected.keys()
    for name in ("local_rows", "row_numbers", "draw_rows"):
        np.testing.assert_array_equal(found[name].reshape(expected[name].shape), expected[name])
    for name in ("global_sum", "global_mean", "global_rows", "mean_gradients"):
        for device in range(8):
            np.testing.assert_allclose(found[name][device], expected[name], rtol=1e-5, err_msg=name)
