"""Average of the weights over the training steps (exponential moving average, EMA), which can replace the last weights.

The decay is corrected at the start as in TensorFlow's `ExponentialMovingAverage(decay, num_updates)`: it is
min(decay, (1 + n) / (10 + n)), so early weights are soon forgotten. The first update copies the weights, and n counts
the updates between it and the present one, so the average does not depend on the weights before training.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from deeptalk_jax.training.optimiser import join_frozen
from deeptalk_jax.training.state import TrainState
from deeptalk_jax.types import Array

PyTree = Any


class AverageState(NamedTuple):
    """State of `keep_average`.

    Attributes:
        num_updates: number of updates so far.
        average: average of the trained parameters, float32; zeros before the first update.
    """

    num_updates: Array
    average: PyTree


def keep_average(optimiser: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """Makes an optimiser also keep the average of the parameters after each of its updates, which stay the same.

    The average is part of the optimiser's state: it is split over devices, skipped with a step and saved like the
    moments, and frozen parameters, which the optimiser does not see, have no second copy. `optax.ema` is no
    substitute, because it averages updates.

    Args:
        optimiser: optax transformation.
        decay: weight of the old average in every update, below 1; 0 returns the optimiser itself.
    """
    if not decay:
        return optimiser

    def init(params):
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
        return AverageState(jnp.zeros((), jnp.int32), zeros)

    def update(updates, state, params):
        kept = decay_after(state.num_updates, decay)
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda old, x: old + (1.0 - kept) * (x - old), state.average, new)
        return updates, AverageState(state.num_updates + 1, average)

    return optax.chain(optimiser, optax.GradientTransformation(init, update))


def decay_after(num_updates: Array, decay: float) -> Array:
    """Returns the decay of the update that follows `num_updates` others: 0, 1/10, 2/11, 3/12, ..., at most `decay`."""
    updates = jnp.asarray(num_updates, jnp.float32)
    return jnp.minimum(decay, updates / (9.0 + updates))


def trained_variables(state: TrainState) -> PyTree:
    """Returns the variables that a run evaluates and exports.

    Returns:
        `params`, with the average in place of the trained parameters if the optimiser keeps one, and the mutable
        collections of the state, which are not averaged.
    """
    parts = jax.tree.leaves(state.optimiser_state, is_leaf=lambda part: isinstance(part, AverageState))
    averages = [part for part in parts if isinstance(part, AverageState) and int(part.num_updates)]
    params = join_frozen(state.params, averages[0].average) if averages else state.params
    return {"params": params, **state.model_state}
