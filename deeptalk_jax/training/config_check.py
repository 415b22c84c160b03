"""Checks the values of a training config that no module or optimiser checks, before anything is written.

Otherwise each of them would end in a traceback, or in a run that does not do what its config says.
"""

from collections.abc import Sequence
from numbers import Real

from ml_collections import ConfigDict

from deeptalk_jax.errors import ConfigError

ON_NONFINITE = ("stop", "skip")
_NUM_SEEDS = 2**32  # JAX drops higher bits silently
_LEAST = {
    "num_steps": 1,
    "log_every_steps": 1,
    "checkpoint_every_steps": 1,
    "validate_every_steps": 0,
    "eval_every_steps": 0,
    "num_devices": 0,
    "fsdp_devices": 1,
    "accumulate_steps": 1,
    "data.batch_size": 1,
    "data.window_frames": 1,
    "data.windows_per_clip": 0,
    "data.num_threads": 0,
    "data.validation_batches": 1,
    "data.max_clip_frames": 1,
    "data.eval_batch_size": 1,
    "data.eval_clips": 0,
    "optimiser.warmup_steps": 0,
}


def check_config(config: ConfigDict) -> None:
    """Checks counts, intervals, the seed, and the values of other keys that are no fields of a module.

    Whether the stage has the metric of `keep_best` is checked by `best.criterion_of`.

    Raises:
        ConfigError: names the first value that cannot be used.
    """
    for key, least in _LEAST.items():
        value = config
        for part in key.split("."):
            value = value[part]
        if value < least:
            raise ConfigError(f"{key}={value}: expected {least} or more")
    if not 0 <= config.seed < _NUM_SEEDS:
        raise ConfigError(f"seed={config.seed}: expected 0 to 2^32 - 1")
    if not 0 <= config.ema_decay < 1:
        raise ConfigError(
            f"ema_decay={config.ema_decay}: expected 0 (no average of weights) or a number below 1"
        )
    if config.keep_best and not config.eval_every_steps:
        raise ConfigError(
            f"keep_best={config.keep_best!r}: expected eval_every_steps of 1 or more with it, found 0"
        )
    if config.on_nonfinite not in ON_NONFINITE:
        raise ConfigError(f"on_nonfinite={config.on_nonfinite!r}: expected one of {', '.join(ON_NONFINITE)}")
    if config.data.unpack_dir in (None, "None"):
        raise ConfigError('data.unpack_dir=None: expected a directory, or "" to read from the records')
    for pair in config.optimiser.rate_factors:
        if not _is_pair(pair):
            raise ConfigError(
                f"optimiser.rate_factors={config.optimiser.rate_factors!r}: expected pairs of a pattern and a factor, "
                'such as (("speech_encoder/*", 0.1),)'
            )


def _is_pair(pair: object) -> bool:
    is_sequence = isinstance(pair, Sequence) and not isinstance(pair, str)
    return is_sequence and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Real)
