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
from deeptalk_jax.types import INT16_SCALE, Array

PyTree = Any


def make_train_step(
    loss_fn: Callable,
    optimiser: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    frozen_patterns: Sequence[str] = (),
    *,
    skip_nonfinite: bool = False,
) -> Callable[[TrainState, PyTree, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
    """Builds `(state, frozen, batch) -> (state, metrics)`, jitted over the mesh, the old state donated.

    Args:
        loss_fn: as `trainable.Trainable.loss_fn`.
        optimiser: optax transformation.
        mesh: devices; the batch is split over them.
        seed: of all randomness inside the step.
        frozen_patterns: of parameters that stay as they are, see `path_patterns`. Nothing is differentiated with
            respect to them, so neither gradients nor what these would need of the forward pass take memory.
        skip_nonfinite: a step with a term that is not finite changes nothing but the count of steps: neither
            parameters nor mutable collections nor the optimiser. Decided on the device, without a transfer.
    """

    def train_step(state, frozen, batch):
        trained, fixed = split_frozen(state.params, frozen_patterns)
        batch = decode_audio(batch)

        def loss(trained):
            key = step_key(seed, state.step)
            return loss_fn(joined(trained, fixed), state.model_state, frozen, batch, state.step, key)

        (total, (model_state, terms)), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser_state, trained)
        metrics = {**terms, "loss": total, "gradient_norm": optax.global_norm(gradients)}
        broken = jnp.stack([~jnp.isfinite(metrics[name]) for name in sorted(metrics)])
        first = (state.failed_step < 0) & jnp.any(broken)
        old = (trained, state.model_state, state.optimiser_state)
        new = (optax.apply_updates(trained, updates), model_state, optimiser_state)
        if skip_nonfinite:
            first = jnp.zeros((), bool)  # nothing has failed: the step was left out
            new = jax.tree.map(lambda x, y: jnp.where(jnp.any(broken), x, y), old, new)
        trained, model_state, optimiser_state = new
        state = TrainState(
            step=state.step + 1,
            params=joined(trained, fixed),
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


def decode_audio(batch: dict[str, Array]) -> dict[str, Array]:
    """A loader's batch as stages take it: int16, which only sound is, becomes float32 in [-1, 1).

    On the device, because int16 is half as much to assemble and to send.
    """
    return {
        name: x.astype(jnp.float32) * INT16_SCALE if x.dtype == jnp.int16 else x for name, x in batch.items()
    }


def metric_names(loss_fn: Callable, *arguments: PyTree) -> list[str]:
    """Sorted names of the step's metrics, from the shapes of the loss function's arguments."""
    _, (_, terms) = jax.eval_shape(loss_fn, *arguments)
    return sorted([*terms, "loss", "gradient_norm"])
