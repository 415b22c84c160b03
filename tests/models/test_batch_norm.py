"""Batch norm by hand, and over several devices."""

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.training.pmap_runner import spanning


def test_training_statistics_by_hand():
    x = jax.random.normal(jax.random.key(0), (3, 4, 5)) * 2 + 1
    norm = BatchNorm()
    variables = norm.init(jax.random.key(1), x)
    out, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    values = np.asarray(x, np.float64).reshape(12, 5)
    expected = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
    np.testing.assert_allclose(out.reshape(12, 5), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(updated["batch_stats"]["mean"], 0.1 * values.mean(0), rtol=1e-5)
    unbiased = 0.9 + 0.1 * values.var(0, ddof=1)  # as in torch
    np.testing.assert_allclose(updated["batch_stats"]["variance"], unbiased, rtol=1e-5)


def test_evaluation_uses_running_statistics():
    x = jax.random.normal(jax.random.key(0), (3, 4, 2))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(1), x)
    stats = {"mean": jnp.array([1.0, -1.0]), "variance": jnp.array([4.0, 0.25])}
    out = norm.apply({**variables, "batch_stats": stats}, x)
    np.testing.assert_allclose(out, (x - jnp.array([[[1.0, -1.0]]])) / jnp.array([[[2.0, 0.5]]]), rtol=1e-4)


def test_devices_share_statistics_under_pmap():
    x = jax.random.normal(jax.random.key(0), (8, 3, 2))
    norm = BatchNorm()
    variables = norm.init(jax.random.key(1), x)
    whole, _ = norm.apply(variables, x, train=True, mutable=["batch_stats"])

    def shard(rows):
        with spanning("data"):
            return norm.apply(variables, rows, train=True, mutable=["batch_stats"])[0]

    parts = jax.pmap(shard, axis_name="data")(x.reshape(4, 2, 3, 2))
    np.testing.assert_allclose(parts.reshape(8, 3, 2), whole, rtol=1e-5, atol=1e-6)
