"""The training step of every stage: loss, gradients, parameter update, and a check for non-finite terms.

The step is one pure function, `(state, constants, batch) -> (state, metrics)`. It knows nothing about devices; a
`runner.Runner` compiles it for them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array as KeyArray
from ml_collections import ConfigDict

from deeptalk_jax.collectives import mean_gradients
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.training.average import keep_average
from deeptalk_jax.training.optimiser import join_frozen, make_optimiser, split_frozen
from deeptalk_jax.training.state import TrainState, create_state, step_key
from deeptalk_jax.training.trainable import Trainable
from deeptalk_jax.types import INT16_SCALE, Array

PyTree = Any
# (state, constants, batch) -> (state, metrics)
Step = Callable[[TrainState, PyTree, dict[str, Array]], tuple[TrainState, dict[str, Array]]]

# Intermediate values of the forward pass that are kept for the backward pass; None keeps all that it needs.
REMAT = {
    "none": None,
    # Outputs of dense layers and convolutions are kept; attention, activations and norms are computed again.
    "products": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class StageStep(NamedTuple):
    """The training step of a stage.

    Attributes:
        names: sorted names of the metrics.
        initial_state: maps a random key to the state before the first step.
        update: see `make_update`.
    """

    names: list[str]
    initial_state: Callable[[KeyArray], TrainState]
    update: Step


def stage_step(
    stage: Trainable, config: ConfigDict, constants: PyTree, *, features_in_batch: bool = False
) -> StageStep:
    """Builds the training step of a stage from its config.

    Args:
        stage: stage to train.
        config: the resolved config of the stage.
        constants: `stage.constants()`, or its shapes.
        features_in_batch: batches contain precomputed window features; otherwise the step computes them.

    Raises:
        ConfigError: see `make_update` and `make_optimiser`.
    """
    loss_fn = loss_with_features(stage)
    names = _stage_metric_names(stage, loss_fn, constants)
    optimiser = keep_average(make_optimiser(config.optimiser, config.num_steps), config.ema_decay)
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


def loss_with_features(stage: Trainable) -> Callable:
    """Returns `stage.loss_fn` with the window features added to its batch.

    They are computed inside the loss, so that accumulation and rematerialisation apply to them too.
    """

    def loss_fn(params, model_state, constants, batch, step, key):
        features = stage.window_features({"params": params, **model_state}, constants, batch)
        return stage.loss_fn(params, model_state, constants, batch | features, step, key)

    return loss_fn


def _stage_metric_names(stage: Trainable, loss_fn: Callable, constants: PyTree) -> list[str]:
    variables = jax.eval_shape(stage.init, jax.random.key(0))
    model_state = {name: tree for name, tree in variables.items() if name != "params"}
    step = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(lambda: step_key(0, 0))
    return metric_names(loss_fn, variables["params"], model_state, constants, stage.batch_shapes(), step, key)


def metric_names(loss_fn: Callable, *arguments: PyTree) -> list[str]:
    """Returns the sorted names of the step's metrics, from the shapes of the loss function's arguments."""
    _, (_, terms) = jax.eval_shape(loss_fn, *arguments)
    return sorted([*terms, "loss", "gradient_norm"])


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
        loss_fn: see `trainable.Trainable.loss_fn`.
        optimiser: optax transformation.
        seed: seed of all randomness in the step.
        frozen_patterns: patterns of parameters that stay unchanged, see `optimiser.split_frozen`. The loss is not
            differentiated with respect to them, so neither their gradients nor the activations that those would need
            take memory.
        skip_nonfinite: a step with a non-finite term changes only the step count, and neither parameters nor mutable
            collections nor optimiser state. The device decides this, without a transfer to the host.
        accumulate_steps: number of parts of the batch that are computed one after the other. Gradients and terms are
            means over the parts. Quantities that depend on the whole batch then depend on a part: batch statistics,
            contrastive pairs, and the weight of a frame where the parts have different numbers of frames.
        remat: key of `REMAT`.

    Raises:
        ConfigError: `remat` is unknown, or `accumulate_steps` is below 1.
    """
    if accumulate_steps < 1:
        raise ConfigError(f"accumulate_steps={accumulate_steps}: expected at least 1")
    gradients_of = _gradient_function(_rematerialised(loss_fn, remat))

    def train_step(state, constants, batch):
        trained, frozen = split_frozen(state.params, frozen_patterns)
        batch, key = decode_audio(batch), step_key(seed, state.step)

        def gradients_of_part(model_state, part, part_key):
            return gradients_of(trained, frozen, model_state, constants, part, state.step, part_key)

        if accumulate_steps == 1:
            found = gradients_of_part(state.model_state, batch, key)
        else:
            found = _over_parts(gradients_of_part, state.model_state, batch, key, accumulate_steps)
        gradients, model_state, metrics = found
        gradients = mean_gradients(gradients)
        metrics["gradient_norm"] = optax.global_norm(gradients)
        updates, optimiser_state = optimiser.update(gradients, state.optimiser_state, trained)
        new = state.replace(
            step=state.step + 1,
            params=join_frozen(optax.apply_updates(trained, updates), frozen),
            model_state=model_state,
            optimiser_state=optimiser_state,
        )
        broken = jnp.stack([~jnp.isfinite(metrics[name]) for name in sorted(metrics)])
        return (_skip_if_broken if skip_nonfinite else _remember_broken)(state, new, broken), metrics

    return train_step


def decode_audio(batch: dict[str, Array]) -> dict[str, Array]:
    """Converts int16 arrays, which only audio is stored as, to float32 in [-1, 1).

    This runs on the device, because int16 halves the work of assembling a batch and of sending it.
    """
    return {
        name: x.astype(jnp.float32) * INT16_SCALE if x.dtype == jnp.int16 else x for name, x in batch.items()
    }


def _rematerialised(loss_fn: Callable, remat: str) -> Callable:
    if remat not in REMAT:
        raise ConfigError(f"remat={remat!r}: expected one of {', '.join(REMAT)}")
    return jax.checkpoint(loss_fn, policy=REMAT[remat]) if REMAT[remat] else loss_fn


def _gradient_function(loss_fn: Callable) -> Callable:
    """Returns a function that computes gradients of trained parameters, new mutable collections and loss terms."""

    def gradients_of(trained, frozen, model_state, constants, batch, step, key):
        def loss(trained):
            return loss_fn(join_frozen(trained, frozen), model_state, constants, batch, step, key)

        (total, (model_state, terms)), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
        return gradients, model_state, {**terms, "loss": total}

    return gradients_of


def _skip_if_broken(old: TrainState, new: TrainState, broken: Array) -> TrainState:
    """Returns the new state, or the old one with the step counted if a term is not finite."""
    kept = jax.tree.map(lambda x, y: jnp.where(jnp.any(broken), x, y), old, new)
    return kept.replace(step=new.step)


def _remember_broken(old: TrainState, new: TrainState, broken: Array) -> TrainState:
    """Returns the new state, with the first step that had a non-finite term and which terms those were."""
    first = (old.failed_step < 0) & jnp.any(broken)
    return new.replace(
        failed_step=jnp.where(first, old.step, old.failed_step),
        failed_terms=jnp.where(first, broken, old.failed_terms),
    )


def _over_parts(
    gradients_of: Callable, model_state: PyTree, batch: dict[str, Array], key: Array, num_parts: int
) -> tuple[PyTree, PyTree, dict[str, Array]]:
    """Computes mean gradients and terms over parts of the batch, one after the other.

    Mutable collections pass from each part to the next. Part i of m holds rows i, m + i, 2 m + i, ..., so that every
    part is spread over all devices if the batch is.

    `optax.microbatching.microbatch` cuts and sums in the same way, but gives its function no state of the part
    before, so codebooks and batch statistics would learn from one part only.
    """
    num_rows = len(next(iter(batch.values())))
    if num_rows % num_parts:
        raise ConfigError(
            f"accumulate_steps={num_parts}: expected a divisor of the {num_rows} rows of a batch (under pmap: of a "
            "device's share)"
        )
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
