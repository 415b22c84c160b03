"""Mapping a function over the rows of a batch, and the random keys of samples."""

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.inference.animator import _map_rows, random_keys


def test_a_cpu_skips_the_rows_that_fill_a_batch():
    computed = []

    def double(x, keys):
        jax.debug.callback(lambda rows: computed.extend(rows.tolist()), x)
        return 2.0 * x, jax.vmap(jax.random.bits)(keys)

    rows, keys = jnp.arange(1.0, 6.0), jax.random.split(jax.random.key(0), 5)
    run = jax.jit(lambda num_wanted, *rows: _map_rows(double, num_wanted, *rows))
    doubled, bits = run(3, rows, keys)
    jax.effects_barrier()
    assert computed == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(doubled[:3], 2.0 * rows[:3])
    np.testing.assert_array_equal(bits[:3], jax.vmap(jax.random.bits)(keys)[:3])


def test_keys_depend_on_the_seed_of_each_sample_only():
    seeds = [0, 5, 2**32 - 1]
    emotion_keys, code_keys = random_keys(np.array(seeds, np.uint32))
    for seed, *keys in zip(seeds, emotion_keys, code_keys, strict=True):
        expected = jax.random.split(jax.random.key(seed))
        np.testing.assert_array_equal(jax.random.key_data(jnp.stack(keys)), jax.random.key_data(expected))
