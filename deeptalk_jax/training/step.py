"""The training step of every stage: loss, gradient, update, and a watch for non-finite terms."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deeptalk_jax.training.mesh import batch_sharding, replicated
from deeptalk_jax.training.path_patterns import joined, split_frozen
from deeptalk_jax.training.state import TrainState, step_key
from deeptalk_jax.types import Array

PyTree = Any


def make_train_step(
    loss_fn: Callable,
    optimiser: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    frozen_patterns: Sequence[str] = (),
) -> Callable[[TrainState, PyTree, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
    """Builds `(state, frozen, batch) -> (state, metrics)`, jitted over the mesh, the old state donated.

    Args:
        loss_fn: as `trainable.Trainable.loss_fn`.
        optimiser: optax transformation.
        mesh: devices; the batch is split over them.
        seed: of all randomness inside the step.
        frozen_patterns: of parameters that stay as they are, see `path_patterns`. Nothing is differentiated with
            respect to them, so neither gradients nor what these would need of the forward pass take memory.
    """

    def train_step(state, frozen, batch):
        trained, fixed = split_frozen(state.params, frozen_patterns)

        def loss(trained):
            key = step_key(seed, state.step)
            return loss_fn(joined(trained, fixed), state.model_state, frozen, batch, state.step, key)

        (total, (model_state, terms)), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser_state, trained)
        metrics = {**terms, "loss": total, "gradient_norm": optax.global_norm(gradients)}
        broken = jnp.stack([~jnp.isfinite(metrics[name]) for name in sorted(metrics)])
        first = (state.failed_step < 0) & jnp.any(broken)
        state = TrainState(
            step=state.step + 1,
            params=joined(optax.apply_updates(trained, updates), fixed),
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
