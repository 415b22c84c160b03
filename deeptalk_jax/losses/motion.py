"""Errors of motion parameters, or of anything that moves, frame by frame (SPEC sections 3 and 4).

The error of vertices without vertices is `head/gram.squared_distance`.
"""

import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.types import EXPRESSION_DIM, Array

PARAMETER_ERRORS = ("l1", "l2")


def squared_error(values: Float[Array, "b t d"], target: Float[Array, "b t d"]) -> Float[Array, "b t"]:
    """Mean square of the difference, over the last axis."""
    return jnp.mean(jnp.square(values - target), axis=-1)


def parameter_error(
    kind: str, motion: Float[Array, "b t 53"], target: Float[Array, "b t 53"]
) -> Float[Array, "b t"]:
    """Mean over the expression plus mean over the jaw: 3 numbers of the jaw weigh as much as 50.

    Args:
        kind: `l1` for absolute, `l2` for squared differences.
        motion: expression coefficients, then jaw axis-angle in radians.
        target: the same.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in PARAMETER_ERRORS:
        raise ValueError(f"parameter error {kind!r} is not one of {PARAMETER_ERRORS}")
    errors = jnp.abs(motion - target) if kind == "l1" else jnp.square(motion - target)
    return jnp.mean(errors[..., :EXPRESSION_DIM], axis=-1) + jnp.mean(errors[..., EXPRESSION_DIM:], axis=-1)


def jaw_error(motion: Float[Array, "b t 53"], target: Float[Array, "b t 53"]) -> Float[Array, "b t"]:
    """Mean squared difference of the jaw's axis-angle, rad^2."""
    return squared_error(motion[..., EXPRESSION_DIM:], target[..., EXPRESSION_DIM:])


def velocity_error(values: Float[Array, "b t d"], target: Float[Array, "b t d"]) -> Float[Array, "b t-1"]:
    """Mean squared difference of the changes from frame to frame; of a mask take `mask[:, 1:]`."""
    return squared_error(jnp.diff(values, axis=1), jnp.diff(target, axis=1))


def standardised_over_time(motion: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Every channel of every clip less its mean, over its standard deviation (of t - 1); 0 where it stands still."""
    centred = motion - jnp.mean(motion, axis=1, keepdims=True)
    variance = jnp.sum(jnp.square(centred), axis=1, keepdims=True) / (motion.shape[1] - 1)
    # Both roots behind a where: at 0 the gradient of one would be infinite.
    return centred / jnp.sqrt(jnp.where(variance > 0.0, variance, 1.0))
