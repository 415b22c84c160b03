"""Grouped convolution of a batch that is split over devices."""

from typing import Any

import jax
from jaxtyping import Float

from deeptalk_jax.collectives import rows_apart
from deeptalk_jax.types import Array


def grouped_conv(
    x: Float[Array, "b s d"], kernel: Float[Array, "k g e"], *arguments: Any, **options: Any
) -> Float[Array, "b s e"]:
    """`jax.lax.conv_general_dilated`, by every device for its own rows.

    Where channels come in groups, XLA for CPUs and GPUs does not keep the split of the batch: under jit over a mesh it
    gathers the rows of all devices on each. Linen takes this as `nn.Conv(conv_general_dilated=...)`.

    Args:
        x: rows.
        kernel: `g` input channels of a group, `e` output channels of all.
        *arguments: strides and padding.
        **options: dimension numbers, number of groups, ...
    """

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)

    return rows_apart(convolve)(x, kernel)
