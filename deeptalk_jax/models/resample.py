"""Linear resampling of features along time, end points aligned, every clip over its own length.

DEEPTalk takes wav2vec 2.0's 50 Hz features to the 25 Hz of the motion before the transformer (SPEC section
4). Positions and weights are found in integers, so no clip length suffers from rounding.
"""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.masks import length_mask, zero_padding
from deeptalk_jax.types import Array

ROUNDINGS = ("published", "exact")
# (length - 1)^2 must stay below 2^31 in `resample_linear`; at 25 Hz this is half an hour.
MAX_OUTPUT_LENGTH = 46_340


def resampled_length(
    length: int | np.ndarray, *, from_hz: float, to_hz: float, rounding: str = "published"
) -> int | np.ndarray:
    """Number of output frames, `ceil(length / from_hz * to_hz)`.

    Args:
        length: number of input frames, or an integer array of them. Known values only: traced ones index the
            table that this function gives for `arange`.
        from_hz: rate of the input.
        to_hz: rate of the output.
        rounding: `exact` rounds the true quotient up. `published` computes it in double precision first, as the
            released code does: 14 frames at 50 Hz become 7.000000000000001 and then 8 at 25 Hz.

    Returns:
        Count or counts, integers.

    Raises:
        ValueError: unknown rounding.
    """
    if rounding not in ROUNDINGS:
        raise ValueError(f"rounding={rounding!r} is not one of {ROUNDINGS}")
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
    """Linear interpolation with aligned end points, per clip.

    Output frame j of a clip of `n` inputs and `m` outputs lies at input position j (n - 1) / (m - 1); a clip
    with one output takes its first input.

    Args:
        values: `[b, s, d]` features; those past `lengths` do not matter.
        lengths: `[b]` valid inputs, at least 1.
        new_lengths: `[b]` outputs over which the clip is spread, at least 1.
        num_frames: static size of the output's time axis. Frames past `num_frames` are cut, missing ones
            zero.

    Returns:
        `[b, num_frames, d]`, zero from `new_lengths` on.

    Raises:
        ValueError: `num_frames` is beyond `MAX_OUTPUT_LENGTH`.
    """
    if num_frames > MAX_OUTPUT_LENGTH:
        raise ValueError(
            f"cannot resample to {num_frames} frames at once; the most is {MAX_OUTPUT_LENGTH}: cut the clip"
        )
    mask = length_mask(new_lengths, num_frames)
    frame = jnp.where(mask, jnp.arange(num_frames, dtype=jnp.int32)[None], 0)
    steps = jnp.maximum(new_lengths.astype(jnp.int32) - 1, 1)[:, None]
    span = jnp.maximum(lengths.astype(jnp.int32) - 1, 0)[:, None]
    # j * span = steps * (j * quotient + ...) + ...: the split keeps every product inside int32.
    quotient, remainder = span // steps, span % steps
    product = frame * remainder
    left = frame * quotient + product // steps
    weight = (product % steps).astype(jnp.float32) / steps.astype(jnp.float32)
    right = jnp.minimum(left + 1, span)

    def take(index):
        return jnp.take_along_axis(values, index[..., None], axis=1).astype(jnp.float32)

    mixed = take(left) * (1.0 - weight[..., None]) + take(right) * weight[..., None]
    return zero_padding(mixed, mask).astype(values.dtype)
