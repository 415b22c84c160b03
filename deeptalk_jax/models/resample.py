"""Linear resampling of features along time with aligned end points, over the length of every clip.

DEEPTalk resamples wav2vec 2.0's 50 Hz features to the 25 Hz of the motion before the transformer (docs/method.md,
section 4). `jax.image.resize` is not used: it aligns pixel corners instead of end points and has one length for the
whole batch. Positions and weights are computed with integers, so they are exact for every clip length.
"""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import length_mask, zero_padding
from deeptalk_jax.types import Array

ROUNDINGS = ("published", "exact")
# (length - 1)^2 must be below 2^31 in `resample_linear`; at 25 Hz this length is half an hour.
MAX_OUTPUT_LENGTH = 46_340


def resampled_length(
    length: int | np.ndarray, *, from_hz: float, to_hz: float, rounding: str = "published"
) -> int | np.ndarray:
    """Returns the number of output frames, `ceil(length / from_hz * to_hz)`.

    Args:
        length: number of input frames, or an integer array of them. Values must be concrete; for traced lengths,
            index the table that this function returns for `arange`.
        from_hz: rate of the input.
        to_hz: rate of the output.
        rounding: "exact" rounds the exact quotient up. "published" first computes it in double precision, as the
            published code does: 14 frames at 50 Hz become 7.000000000000001 and then 8 frames at 25 Hz.

    Returns:
        The number as an int, or an integer array for an array.

    Raises:
        ConfigError: `rounding` is not one of `ROUNDINGS`.
    """
    if rounding not in ROUNDINGS:
        raise ConfigError(f"rounding={rounding!r} is not one of {ROUNDINGS}")
    counts = np.asarray(length, np.int64)
    if rounding == "published":
        frames = np.ceil(counts / float(from_hz) * float(to_hz)).astype(np.int64)
    else:
        ratio = (Fraction(to_hz) / Fraction(from_hz)).limit_denominator(100_000)
        frames = -(-counts * ratio.numerator // ratio.denominator)
    return int(frames) if np.ndim(length) == 0 else frames


def resample_linear(
    values: Float[Array, "b s d"],
    lengths: Int[Array, " b"],
    new_lengths: Int[Array, " b"],
    num_frames: int,
) -> Float[Array, "b t d"]:
    """Interpolates every clip linearly with aligned end points.

    Output frame j of a clip with n inputs and m outputs is at input position j (n - 1) / (m - 1). If there is only
    one output, it is the first input.

    Args:
        values: `[b, s, d]` features; those beyond `lengths` are ignored.
        lengths: `[b]` number of valid inputs, at least 1.
        new_lengths: `[b]` number of outputs, at least 1.
        num_frames: static size of the output's time axis. Further frames are cut, missing frames are zero.

    Returns:
        `[b, num_frames, d]`, zero from `new_lengths` on.

    Raises:
        ValueError: `num_frames` exceeds `MAX_OUTPUT_LENGTH`.
    """
    if num_frames > MAX_OUTPUT_LENGTH:
        raise ValueError(
            f"cannot resample to num_frames={num_frames}: expected at most {MAX_OUTPUT_LENGTH}; cut the clip"
        )
    mask = length_mask(new_lengths, num_frames)  # [b, t]
    frame = jnp.where(mask, jnp.arange(num_frames, dtype=jnp.int32)[None], 0)
    steps = jnp.maximum(new_lengths.astype(jnp.int32) - 1, 1)[:, None]
    span = jnp.maximum(lengths.astype(jnp.int32) - 1, 0)[:, None]
    # j * span = steps * (j * quotient) + j * remainder: this split keeps every product within int32.
    quotient, remainder = span // steps, span % steps
    product = frame * remainder
    left = frame * quotient + product // steps
    weight = (product % steps).astype(jnp.float32) / steps.astype(jnp.float32)
    right = jnp.minimum(left + 1, span)

    def take(index):
        return jnp.take_along_axis(values, index[..., None], axis=1).astype(jnp.float32)

    mixed = take(left) * (1.0 - weight[..., None]) + take(right) * weight[..., None]
    return zero_padding(mixed, mask).astype(values.dtype)
