"""Grouped convolution of a batch that is split over devices.

XLA for CPUs and GPUs does not keep the split of the batch for grouped convolutions: under jit over a mesh, every device
would gather the rows of all devices.
"""

from typing import Any

import jax
from jaxtyping import Float

from deeptalk_jax.collectives import rows_apart
from deeptalk_jax.types import Array


def grouped_conv(
    x: Float[Array, "b s d"], kernel: Float[Array, "k g e"], *arguments: Any, **options: Any
) -> Float[Array, "b s e"]:
    """Computes `jax.lax.conv_general_dilated` on every device for its own rows.

    It can be passed to Flax as `nn.Conv(conv_general_dilated=grouped_conv)`.

    Args:
        x: rows of the batch.
        kernel: `[k, g, e]` with g input channels of one group and e output channels of all groups.
        *arguments: strides and padding, as in `conv_general_dilated`.
        **options: dimension numbers, number of groups and so on, as in `conv_general_dilated`.
    """

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)

    return rows_apart(convolve)(x, kernel)
