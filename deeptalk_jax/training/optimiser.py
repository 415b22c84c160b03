"""Optimisers and learning-rate schedules from a config."""

from collections.abc import Sequence

import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.training.path_patterns import first_matches

SCHEDULES = ("constant", "cosine", "step")


def make_schedule(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """Learning rate by step, after a linear warm-up from zero.

    Args:
        config: `learning_rate`, `schedule`, `warmup_steps`, `final_learning_rate` (cosine), `decay_every_steps`
            and `decay_factor` (step).
        num_steps: length of the whole run.

    Raises:
        ValueError: an unknown schedule.
    """
    after_warmup = max(num_steps - config.warmup_steps, 1)
    if config.schedule == "constant":
        main = optax.constant_schedule(config.learning_rate)
    elif config.schedule == "cosine":
        main = optax.cosine_decay_schedule(
            config.learning_rate, after_warmup, alpha=config.final_learning_rate / config.learning_rate
        )
    elif config.schedule == "step":
        main = optax.exponential_decay(
            config.learning_rate, config.decay_every_steps, config.decay_factor, staircase=True
        )
    else:
        raise ValueError(f"schedule={config.schedule!r} is not one of {SCHEDULES}")
    if not config.warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, main], [config.warmup_steps])


def scale_by_path(factors: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
    """Updates times the factor of the first pattern that matches the parameter's path; others stay as they are.

    Behind an optimiser it gives layers learning rates of their own.

    Args:
        factors: (pattern, factor) pairs, see `path_patterns`.

    Raises:
        UserError: a pattern matches no trained parameter; from the transformation's `init`.
    """
    patterns, values = [pattern for pattern, _ in factors], [float(factor) for _, factor in factors]

    def init(params):
        first_matches("optimiser.rate_factors", params, patterns)
        return optax.EmptyState()

    def update(updates, state, params=None):
        found = first_matches("optimiser.rate_factors", updates, patterns)
        flat = flatten_dict(updates, sep="/")
        scaled = {path: values[found[path]] * x if path in found else x for path, x in flat.items()}
        return unflatten_dict(scaled, sep="/"), state

    return optax.GradientTransformation(init, update)


def make_optimiser(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Adam, or AdamW where `weight_decay` is set, with gradients clipped to `max_gradient_norm` (0: not).

    Learning rate and decay are multiplied by `rate_factors`, see `scale_by_path`.
    """
    schedule = make_schedule(config, num_steps)
    clip = (
        optax.clip_by_global_norm(config.max_gradient_norm) if config.max_gradient_norm else optax.identity()
    )
    adam = optax.adamw(schedule, eps=config.epsilon, weight_decay=config.weight_decay)
    return optax.chain(clip, adam, scale_by_path(config.rate_factors))
