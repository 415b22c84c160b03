"""The training step of every stage: loss, gradient, update, and a watch for non-finite terms.

`make_update` gives one pure function; `parallel_step` runs it on all devices, under jit or under pmap.
"""

from collections.abc import Callable, Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from deeptalk_jax.collectives import mean_gradients, over_mesh, spanning
from deeptalk_jax.training.mesh import DATA_AXIS, batch_sharding, replicated, state_sharding
from deeptalk_jax.training.path_patterns import joined, split_frozen
from deeptalk_jax.training.state import TrainState, step_key
from deeptalk_jax.types import INT16_SCALE, Array

PyTree = Any
# (state, constants, batch) -> (state, metrics)
Step = Callable[[TrainState, PyTree, dict[str, Array]], tuple[TrainState, dict[str, Array]]]

PARALLEL = ("jit", "pmap")
# What the backward pass keeps of the forward pass; None: all that it needs.
REMAT = {
    "none": None,
    # Outputs of dense layers and convolutions; attention, activations and norms are computed again.
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def make_update(
    loss_fn: Callable,
    optimiser: optax.GradientTransformation,
    seed: int,
    frozen_patterns: Sequence[str] = (),
    *,
    skip_nonfinite: bool = False,
    accumulate_steps: int = 1,
    remat: str = "none",
) -> Step:
    """Builds the pure step `(state, constants, batch) -> (state, metrics)`.

    Args:
        loss_fn: as `trainable.Trainable.loss_fn`.
        optimiser: optax transformation.
        seed: of all randomness inside the step.
        frozen_patterns: of parameters that stay as they are, see `path_patterns`. Nothing is differentiated with
            respect to them, so neither gradients nor what these would need of the forward pass take memory.
        skip_nonfinite: a step with a term that is not finite changes nothing but the count of steps: neither
            parameters nor mutable collections nor the optimiser. Decided on the device, without a transfer.
        accumulate_steps: parts that the batch is cut into, one after the other; gradients and terms are means over
            the parts. Means over the batch are means over a part then: batch statistics, contrastive pairs, and
            frames where parts hold different numbers of them.
        remat: a key of `REMAT`.

    Raises:
        ValueError: an unknown kind of rematerialisation, or no part.
    """
    if accumulate_steps < 1:
        raise ValueError(f"accumulate_steps={accumulate_steps} is too small; expected at least 1")
    gradients_of = _gradient_function(_rematerialised(loss_fn, remat))

    def train_step(state, constants, batch):
        trained, fixed = split_frozen(state.params, frozen_patterns)
        batch, key = decode_audio(batch), step_key(seed, state.step)
        if accumulate_steps == 1:
            found = gradients_of(trained, fixed, state.model_state, constants, batch, state.step, key)
        else:

            def of_part(model_state, part, part_key):
                return gradients_of(trained, fixed, model_state, constants, part, state.step, part_key)

            found = _over_parts(of_part, state.model_state, batch, key, accumulate_steps)
        gradients, model_state, metrics = found
        gradients = mean_gradients(gradients)
        metrics["gradient_norm"] = optax.global_norm(gradients)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser_state, trained)
        new = state.replace(
            step=state.step + 1,
            params=joined(optax.apply_updates(trained, updates), fixed),
            model_state=model_state,
            optimiser_state=optimiser_state,
        )
        broken = jnp.stack([~jnp.isfinite(metrics[name]) for name in sorted(metrics)])
        return (_skipping if skip_nonfinite else _remembering)(state, new, broken), metrics

    return train_step


def _rematerialised(loss_fn: Callable, remat: str) -> Callable:
    if remat not in REMAT:
        raise ValueError(f"remat={remat!r} is not one of {tuple(REMAT)}")
    return jax.checkpoint(loss_fn, policy=REMAT[remat]) if REMAT[remat] else loss_fn


def _gradient_function(loss_fn: Callable) -> Callable:
    """Gradients with respect to the trained parameters, the new mutable collections and the terms of the loss."""

    def gradients_of(trained, fixed, model_state, constants, batch, step, key):
        def loss(trained):
            return loss_fn(joined(trained, fixed), model_state, constants, batch, step, key)

        (total, (model_state, terms)), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        return gradients, model_state, {**terms, "loss": total}

    return gradients_of


def _skipping(old: TrainState, new: TrainState, broken: Array) -> TrainState:
    """The old state with one step more where a term is not finite."""
    kept = jax.tree.map(lambda x, y: jnp.where(jnp.any(broken), x, y), old, new)
    return kept.replace(step=new.step)


def _remembering(old: TrainState, new: TrainState, broken: Array) -> TrainState:
    """The new state, which holds the first step with terms that are not finite, and which they were."""
    first = (old.failed_step < 0) & jnp.any(broken)
    return new.replace(
        failed_step=jnp.where(first, old.step, old.failed_step),
        failed_terms=jnp.where(first, broken, old.failed_terms),
    )


def _over_parts(
    gradients_of: Callable, model_state: PyTree, batch: dict[str, Array], key: Array, num_parts: int
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """Mean gradients and terms over parts of the batch; each part's mutable collections go on from the last's.

    Part i of m holds rows i, m + i, 2 m + i, ...: where rows are dealt out over devices, each part lies on all.
    """
    rows = len(next(iter(batch.values())))
    if rows % num_parts:
        raise ValueError(f"accumulate_steps={num_parts} does not divide the {rows} rows of a batch or device")
    parts = jax.tree.map(lambda x: einops.rearrange(x, "(r m) ... -> m r ...", m=num_parts), batch)

    def one(model_state, part_and_key):
        gradients, model_state, metrics = gradients_of(model_state, *part_and_key)
        return model_state, (gradients, metrics)

    def add(carry, part_and_key):
        sums, model_state = carry
        model_state, found = one(model_state, part_and_key)
        return (jax.tree.map(jnp.add, sums, found), model_state), None

    keys = jax.random.split(key, num_parts)
    first, others = (jax.tree.map(lambda x, cut=cut: x[cut], (parts, keys)) for cut in (0, slice(1, None)))
    model_state, sums = one(model_state, first)
    (sums, model_state), _ = jax.lax.scan(add, (sums, model_state), others)
    gradients, metrics = jax.tree.map(lambda x: x / num_parts, sums)
    return gradients, model_state, metrics


def parallel_step(
    update: Step, mesh: Mesh, state: TrainState, constants: PyTree, parallel: str = "jit"
) -> Step:
    """The step on all devices of the mesh, the old state donated.

    Args:
        update: pure function, see `make_update`.
        mesh: devices; the batch is split over them.
        state: as it comes in, or its shapes.
        constants: arrays that the loss reads and no optimiser changes, or their shapes.
        parallel: "jit": global arrays, the batch by `mesh.shard_batch`, large arrays of the state split over `fsdp`.
            "pmap": every device computes its own rows, with the collectives that `collectives.py` names; the batch
            by `mesh.rows_by_device`, and the state whole on every device.

    Raises:
        ValueError: an unknown way, or an `fsdp` axis with pmap.
    """
    if parallel == "jit":
        held, read = state_sharding(mesh, state), state_sharding(mesh, constants)

        def on_all_devices(state, constants, batch):
            with over_mesh(mesh):
                return update(state, constants, batch)

        return jax.jit(
            on_all_devices,
            in_shardings=(held, read, batch_sharding(mesh)),
            out_shardings=(held, replicated(mesh)),
            donate_argnums=0,
        )
    if parallel != "pmap":
        raise ValueError(f"parallel={parallel!r} is not one of {PARALLEL}")
    if mesh.shape[DATA_AXIS] != mesh.size:
        raise ValueError(
            f"fsdp_devices={mesh.size // mesh.shape[DATA_AXIS]} needs parallel='jit', not 'pmap'"
        )

    def on_each_device(state, constants, batch):
        with spanning(DATA_AXIS):
            return update(state, constants, batch)

    return jax.pmap(
        on_each_device,
        axis_name=DATA_AXIS,
        in_axes=(None, None, 0),
        out_axes=None,
        devices=list(mesh.devices.flat),
        donate_argnums=0,
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
