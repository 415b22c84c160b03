"""The training step of every stage: loss, gradient, update, and a watch for non-finite terms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deeptalk_jax.training.mesh import batch_sharding, replicated
from deeptalk_jax.training.state import TrainState, step_key
from deeptalk_jax.types import Array

PyTree = Any


def make_train_step(
    loss_fn: Callable, optimiser: optax.GradientTransformation, mesh: Mesh, seed: int
) -> Callable[[TrainState, PyTree, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
    """Builds `(state, frozen, batch) -> (state, metrics)`, jitted over the mesh, the old state donated.

    Args:
        loss_fn: as `trainable.Trainable.loss_fn`.
        optimiser: optax transformation.
        mesh: devices; the batch is split over them.
        seed: of all randomness inside the step.
    """

    def train_step(state, frozen, batch):
        (total, (model_state, terms)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, state.model_state, frozen, batch, state.step, step_key(seed, state.step)
        )
        updates, optimiser_state = optimiser.update(gradients, state.optimiser_state, state.params)
        metrics = {**terms, "loss": total, "gradient_norm": optax.global_norm(gradients)}
        broken = jnp.stack([~jnp.isfinite(metrics[name]) for name in sorted(metrics)])
        first = (state.failed_step < 0) & jnp.any(broken)
        state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            model_state=model_state,
            optimiser_state=optimiser_state,
            failed_step=jnp.where(first, state.step, state.failed_step),
            failed_terms=jnp.where(first, broken, state.failed_terms),
        )
        return state, metrics

    whole, rows = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        train_step, in_shardings=(whole, whole, rows), out_shardings=(whole, whole), donate_argnums=0
    )


def metric_names(loss_fn: Callable, *arguments: PyTree) -> list[str]:
    """Sorted names of the step's metrics, from the shapes of the loss function's arguments."""
    _, (_, terms) = jax.eval_shape(loss_fn, *arguments)
    return sorted([*terms, "loss", "gradient_norm"])
