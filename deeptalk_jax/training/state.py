"""Everything that a training step reads and writes, as one pytree."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array as KeyArray

from deeptalk_jax.training.path_patterns import split_frozen
from deeptalk_jax.types import Array

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """State of one stage.

    Attributes:
        step: steps taken.
        params: parameters of the stage, frozen ones too.
        model_state: mutable collections of the model (`batch_stats`, `codebook`).
        optimiser_state: state of the optax transformation, for the parameters that are trained.
        failed_step: first step with a non-finite term, -1 while all is well.
        failed_terms: `[terms]` bool, which terms of that step were not finite, in sorted order of their names.
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
    """State before the first step, from the variables of `Module.init`; for the patterns see `make_train_step`."""
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
    """Random key of a step: a function of seed and step alone, so that a resumed run draws the same numbers."""
    return jax.random.fold_in(jax.random.key(seed), step)
