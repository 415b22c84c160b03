"""Optimisers and learning-rate schedules from a config."""

import optax
from ml_collections import ConfigDict

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


def make_optimiser(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Adam, or AdamW where `weight_decay` is set, with gradients clipped to `max_gradient_norm` (0: not)."""
    schedule = make_schedule(config, num_steps)
    clip = (
        optax.clip_by_global_norm(config.max_gradient_norm) if config.max_gradient_norm else optax.identity()
    )
    return optax.chain(clip, optax.adamw(schedule, eps=config.epsilon, weight_decay=config.weight_decay))
