"""What crosses devices, and what does not."""

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.collectives import side_by_side
from deeptalk_jax.training.mesh import batch_sharding, make_mesh

FILTER = np.arange(24, dtype=np.float32).reshape(3, 2, 4)


def convolve(x):
    return {
        "y": jax.lax.conv_general_dilated(x, FILTER, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
    }


def test_batches_side_by_side_stay_on_their_devices():
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

    assert "all-gather" in compiled(mapped).as_text(), "jax.vmap does as well now"
