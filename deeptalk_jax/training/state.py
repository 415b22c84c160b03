"""The training state: everything that a step reads and writes, as one pytree."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array as KeyArray

from deeptalk_jax.training.optimiser import split_frozen
from deeptalk_jax.types import Array

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """State of the training of one stage.

    Attributes:
        step: number of steps taken.
        params: all parameters of the stage, including frozen ones.
        model_state: mutable collections of the model (`batch_stats`, `codebook`).
        optimiser_state: state of the optax transformation, which covers the trained parameters only.
        failed_step: index of the first step with a non-finite term; -1 if there was none.
        failed_terms: `[terms]` bool, terms that were not finite in that step, in sorted order of their names.
    """

    step: Array
    params: PyTree
    model_state: PyTree
    optimiser_state: PyTree
    failed_step: Array
    failed_terms: Array


def create_state(
    variables: PyTree,
    optimiser: optax.GradientTransformation,
    num_terms: int,
    frozen_patterns: Sequence[str] = (),
) -> TrainState:
    """Creates the state before the first step.

    Args:
        variables: result of `Module.init`.
        optimiser: optax transformation.
        num_terms: number of metrics of the step.
        frozen_patterns: patterns of parameters that stay unchanged, see `optimiser.split_frozen`.
    """
    model_state = {name: tree for name, tree in variables.items() if name != "params"}
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        optimiser_state=optimiser.init(split_frozen(params, frozen_patterns)[0]),
        failed_step=jnp.full((), -1, jnp.int32),
        failed_terms=jnp.zeros((num_terms,), bool),
    )


def step_key(seed: int, step: Array) -> KeyArray:
    """Derives the random key of a step from seed and step only, so that a resumed run draws the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), step)
