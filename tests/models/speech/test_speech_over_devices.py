"""Speech encoders on a batch that is split over eight devices."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.collectives import over_mesh
from deeptalk_jax.training.mesh import batch_sharding, make_mesh, replicated


def test_devices_exchange_nothing_but_sums(encoder, jit):
    """Features and gradients equal those of one device."""
    model, variables = encoder
    mesh = make_mesh(8)
    waveforms = 0.1 * np.random.default_rng(0).standard_normal((16, 1203)).astype(np.float32)
    lengths = np.full(16, 1203, np.int32).clip(max=np.arange(16) * 100 + 400)

    def gradients(variables, waveforms, lengths):
        def loss(variables):
            features = model.apply(variables, waveforms, lengths).values
            return jnp.mean(jnp.square(features)), features

        return jax.grad(loss, has_aux=True)(variables)

    def compiled(context):
        def traced(*arguments):
            with context:
                return gradients(*arguments)

        whole, rows = replicated(mesh), batch_sharding(mesh)
        split = jit(traced, in_shardings=(whole, rows, rows), out_shardings=(whole, rows))
        return split.lower(variables, waveforms, lengths).compile()

    split = compiled(over_mesh(mesh))
    for kind in ("all-gather", "all-to-all", "collective-permute"):
        assert kind not in split.as_text()
    assert "all-gather" in compiled(contextlib.nullcontext()).as_text(), (
        "XLA keeps rows apart without grouped_conv now"
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6),
        split(variables, waveforms, lengths),
        jit(gradients)(variables, waveforms, lengths),
    )
