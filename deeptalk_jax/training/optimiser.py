"""Optimisers, learning-rate schedules, and parameters selected by patterns of their paths.

A path joins the names of nested modules by `/`, such as `speech_encoder/block_3/kernel`. Patterns are shell-style and
`*` also matches `/`: `speech_encoder/block_[0-5]/*` selects the first six blocks.
"""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.errors import ConfigError

PyTree = Any
SCHEDULES = ("constant", "cosine", "step")


def make_optimiser(config: ConfigDict, num_steps: int) -> optax.GradientTransformation:
    """Makes Adam, or AdamW if `weight_decay` is above 0.

    Gradients are clipped to the global norm `max_gradient_norm`, unless it is 0. Learning rate and weight decay of a
    parameter are multiplied by its factor in `rate_factors`, see `scale_by_path`.

    Args:
        config: section `optimiser` of a config.
        num_steps: number of steps of the whole run.

    Raises:
        ConfigError: see `make_schedule`; also from `init` of the optimiser, see `scale_by_path`.
    """
    schedule = make_schedule(config, num_steps)
    clip = (
        optax.clip_by_global_norm(config.max_gradient_norm) if config.max_gradient_norm else optax.identity()
    )
    adam = optax.adamw(schedule, eps=config.epsilon, weight_decay=config.weight_decay)
    return optax.chain(clip, adam, scale_by_path(config.rate_factors))


def make_schedule(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """Makes the learning-rate schedule, which begins with a linear warm-up from zero.

    Args:
        config: `learning_rate`, `schedule`, `warmup_steps`, `final_learning_rate` (for "cosine"),
            `decay_every_steps` and `decay_factor` (for "step").
        num_steps: number of steps of the whole run.

    Raises:
        ConfigError: the schedule is unknown.
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
        raise ConfigError(f"optimiser.schedule={config.schedule!r}: expected one of {', '.join(SCHEDULES)}")
    if not config.warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.join_schedules([warmup, main], [config.warmup_steps])


def scale_by_path(factors: Sequence[tuple[str, float]]) -> optax.GradientTransformation:
    """Multiplies the update of each parameter by the factor of the first pattern that matches its path.

    After an optimiser this gives layers their own learning rates. Parameters that no pattern matches are unchanged.

    `optax.partition` gives the same updates, but its state is another tree, and checkpoints written before could no
    longer be restored.

    Args:
        factors: pairs of a pattern and a factor.

    Raises:
        ConfigError: a pattern matches no trained parameter; raised by `init` of the transformation.
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


def first_matches(key: str, params: PyTree, patterns: Sequence[str]) -> dict[str, int]:
    """Maps the path of every parameter that a pattern matches to the index of the first such pattern.

    Args:
        key: config key that holds the patterns, for the error message.
        params: nested dicts.
        patterns: patterns of paths.

    Raises:
        ConfigError: a pattern matches no parameter.
    """
    paths = list(flatten_dict(params, sep="/"))
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            top = ", ".join(sorted({path.split("/")[0] for path in paths}))
            raise ConfigError(
                f"{key}: {pattern!r} matches no parameter; expected a pattern of paths that begin with: {top}"
            )
    found = {}
    for path in paths:
        hits = (index for index, pattern in enumerate(patterns) if fnmatchcase(path, pattern))
        if (index := next(hits, None)) is not None:
            found[path] = index
    return found


def split_frozen(params: PyTree, patterns: Sequence[str]) -> tuple[PyTree, PyTree]:
    """Splits parameters into those that are trained and those that patterns keep unchanged.

    Returns:
        The trained and the frozen parameters, as nested dicts; `join_frozen` puts them together again.

    Raises:
        ConfigError: a pattern matches no parameter, or no parameter is left to train.
    """
    frozen_paths = first_matches("optimiser.frozen", params, patterns)
    flat = flatten_dict(params, sep="/")
    if len(frozen_paths) == len(flat):
        raise ConfigError(
            f"optimiser.frozen={tuple(patterns)}: expected at least one parameter that no pattern matches, to train"
        )
    frozen = {path: flat.pop(path) for path in frozen_paths}
    return unflatten_dict(flat, sep="/"), unflatten_dict(frozen, sep="/")


def join_frozen(trained: PyTree, frozen: PyTree) -> PyTree:
    """Joins the two parts that `split_frozen` made."""
    return unflatten_dict({**flatten_dict(trained), **flatten_dict(frozen)})
