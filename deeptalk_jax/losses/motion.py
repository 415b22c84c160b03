"""Errors of motion parameters per frame, the alternatives to the vertex loss (docs/method.md, section 3).

The vertex loss is `head.gram.squared_distance`.
"""

import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.types import EXPRESSION_DIM, Array

PARAMETER_ERRORS = ("l1", "l2")


def squared_error(values: Float[Array, "b t d"], target: Float[Array, "b t d"]) -> Float[Array, "b t"]:
    """Returns the mean squared difference over the last axis."""
    return jnp.mean(jnp.square(values - target), axis=-1)


def parameter_error(
    kind: str, motion: Float[Array, "b t 53"], target: Float[Array, "b t 53"]
) -> Float[Array, "b t"]:
    """Returns the mean over the expression plus the mean over the jaw, so that both have the same weight.

    Args:
        kind: "l1" for absolute differences, "l2" for squared differences.
        motion: 50 expression coefficients, then the jaw axis-angle in radians.
        target: true motion, in the same format.

    Raises:
        ConfigError: `kind` is not one of `PARAMETER_ERRORS`.
    """
    if kind not in PARAMETER_ERRORS:
        raise ConfigError(f"parameter error {kind!r} is not one of {PARAMETER_ERRORS}")
    errors = jnp.abs(motion - target) if kind == "l1" else jnp.square(motion - target)
    return jnp.mean(errors[..., :EXPRESSION_DIM], axis=-1) + jnp.mean(errors[..., EXPRESSION_DIM:], axis=-1)


def jaw_error(motion: Float[Array, "b t 53"], target: Float[Array, "b t 53"]) -> Float[Array, "b t"]:
    """Returns the mean squared difference of the jaw's axis-angle, in rad^2."""
    return squared_error(motion[..., EXPRESSION_DIM:], target[..., EXPRESSION_DIM:])
