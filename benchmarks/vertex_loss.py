"""Exact vertex loss by Gram factor against explicit vertices: time of value and gradient, and their difference.

    python -m benchmarks.vertex_loss --batch=16

Median of several warm runs of both, one after the other in one process. The last line is one JSON object.
"""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.head.gram import distance_factor, squared_distance
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.load import load_head

_BATCH = flags.DEFINE_integer("batch", 16, "Windows of 32 frames.")
_RUNS = flags.DEFINE_integer("runs", 5, "Runs of each, after one to compile.")


def _median_s(function, *arguments) -> float:
    jax.block_until_ready(function(*arguments))
    times = []
    for _ in range(_RUNS.value):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _benchmark() -> None:
    head = load_head("procedural")
    factor = distance_factor(head)
    motion, target = 0.1 * jax.random.normal(jax.random.key(0), (2, _BATCH.value, 32, 53))

    @jax.jit
    def by_gram(motion):
        return jax.value_and_grad(lambda m: jnp.mean(squared_distance(factor, m, target)))(motion)

    @jax.jit
    def by_vertices(motion):
        def loss(m):
            return jnp.mean(jnp.square(motion_vertices(head, m) - motion_vertices(head, target)))

        return jax.value_and_grad(loss)(motion)

    (value, gradient), (expected, expected_gradient) = by_gram(motion), by_vertices(motion)
    error = float(jnp.abs(gradient - expected_gradient).max() / jnp.abs(expected_gradient).max())
    result = {
        "loss_speedup": _median_s(by_vertices, motion) / _median_s(by_gram, motion),
        "max_relative_error_float32": max(error, abs(float(value / expected) - 1.0)),
        "rank": factor.shape[0],
        "batch": _BATCH.value,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    run_tool(_benchmark)
