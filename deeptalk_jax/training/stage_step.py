"""What training needs of a stage and its config, without devices: the loop runs it, and benchmarks compile it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array as KeyArray
from ml_collections import ConfigDict

from deeptalk_jax.training.optimiser import make_optimiser
from deeptalk_jax.training.state import TrainState, create_state, step_key
from deeptalk_jax.training.step import Step, make_update, metric_names
from deeptalk_jax.training.trainable import Trainable, loss_with_features

PyTree = Any


class StageStep(NamedTuple):
    """The step of a stage.

    Attributes:
        names: sorted names of its metrics.
        initial_state: key to the state before the first step.
        update: see `step.make_update`.
    """

    names: list[str]
    initial_state: Callable[[KeyArray], TrainState]
    update: Step


def stage_step(
    stage: Trainable, config: ConfigDict, constants: PyTree, *, features_in_batch: bool = False
) -> StageStep:
    """Builds the training step of a stage from its config.

    Args:
        stage: what to train.
        config: the resolved config of the stage.
        constants: `stage.constants()`, or its shapes.
        features_in_batch: batches contain precomputed window features; otherwise the step computes them.

    Raises:
        ValueError: see `make_update` and `make_optimiser`.
    """
    variables = jax.eval_shape(stage.init, jax.random.key(0))
    model_state = {name: tree for name, tree in variables.items() if name != "params"}
    step = jax.ShapeDtypeStruct((), np.int32)
    key = jax.eval_shape(lambda: step_key(0, 0))
    loss_fn = loss_with_features(stage)
    names = metric_names(
        loss_fn, variables["params"], model_state, constants, stage.batch_shapes(), step, key
    )
    optimiser = make_optimiser(config.optimiser, config.num_steps)
    update = make_update(
        stage.loss_fn if features_in_batch else loss_fn,
        optimiser,
        config.seed,
        config.optimiser.frozen,
        skip_nonfinite=config.on_nonfinite == "skip",
        accumulate_steps=config.accumulate_steps,
        remat=config.remat,
    )

    def initial_state(key: KeyArray) -> TrainState:
        return create_state(stage.init(key), optimiser, len(names), config.optimiser.frozen)

    return StageStep(names, initial_state, update)
