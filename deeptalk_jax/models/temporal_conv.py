"""Convolutions that change the frame rate: the squasher and expander of TH-VQVAE, and a resampler for other rates.

SPEC section 3. Names of a first block are those of the published layers, which know a factor of 2 only.
"""

from fractions import Fraction

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.masks import zero_padding
from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.models.resample import resample_linear
from deeptalk_jax.types import Array

LEAKY_SLOPE = 0.2
KERNEL_SIZE = 5


class DoublingConv(nn.Module):
    """Transposed convolution of stride 2 and padding 2 that doubles time exactly.

    The numbers of `nn.ConvTranspose` with `padding=((2, kernel_size - 2),)`, computed as two ordinary convolutions,
    for the even and for the odd output frames: XLA's dilated convolution is 20 times slower on a CPU.

    Attributes:
        dim: output channels.
        kernel_size: 4 or 5 taps.
        dtype: compute type.
    """

    dim: int
    kernel_size: int = KERNEL_SIZE
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b 2t e"]:
        """Frames before the first and after the last count as zero."""
        shape = (self.kernel_size, x.shape[-1], self.dim)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.dim,))
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        # Output 2m sees taps 0, 2, 4 at inputs m - 1, m, m + 1; output 2m + 1 sees taps 1, 3 at inputs m, m + 1.
        even = _conv(x, kernel[0::2], (1, (self.kernel_size - 3) // 2))
        odd = _conv(x, kernel[1::2], (0, 1))
        return einops.rearrange([even, odd], "p b t e -> b (t p) e") + bias[None, None]


def _conv(x: Float[Array, "b t d"], kernel: Float[Array, "k d e"], padding: tuple[int, int]) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, window_strides=(1,), padding=(padding,), dimension_numbers=("NWC", "WIO", "NWC")
    )


def num_halvings(factor: int) -> int:
    """Base-2 logarithm.

    Raises:
        ValueError: `factor` is not 2, 4, 8, ...
    """
    if factor < 2 or factor & (factor - 1):
        raise ValueError(f"the frame rate changes by powers of two, not by {factor}")
    return factor.bit_length() - 1


def _edge_conv(
    x: Float[Array, "b t d"], dim: int, stride: int, train: bool, dtype: jnp.dtype, suffix: str = ""
) -> Float[Array, "b u e"]:
    """Convolution over replicated edges, LeakyReLU, batch norm, as children of the calling module."""
    half = KERNEL_SIZE // 2
    x = jnp.pad(x, ((0, 0), (half, half), (0, 0)), mode="edge")
    x = nn.Conv(dim, (KERNEL_SIZE,), strides=(stride,), padding="VALID", dtype=dtype, name=f"conv{suffix}")(x)
    return BatchNorm(name=f"norm{suffix}")(nn.leaky_relu(x, LEAKY_SLOPE), train=train)


class Squasher(nn.Module):
    """Divides time by a power of two: convolution of stride 2 over replicated edges, LeakyReLU, batch norm.

    Every further factor of 2 is such a block of stride 1 and a maximum over pairs of frames.

    Attributes:
        dim: output channels.
        factor: frames per output frame.
        dtype: compute type.
    """

    dim: int
    factor: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, train: bool = False) -> Float[Array, "b t/f e"]:
        """Every window must be full: padded frames would enter the last latent."""
        x = _edge_conv(x, self.dim, 2, train, self.dtype)
        for index in range(1, num_halvings(self.factor)):
            x = _edge_conv(x, self.dim, 1, train, self.dtype, f"_{index}")
            # Not a reduction: its gradient divides by how many frames equal the maximum, and XLA's rounding may leave
            # none.
            x = jnp.maximum(x[:, 0::2], x[:, 1::2])
        return x


class Expander(nn.Module):
    """Multiplies time by a power of two: for every factor of 2 a transposed convolution, LeakyReLU, batch norm.

    Attributes:
        dim: output channels.
        factor: output frames per frame.
        dtype: compute type.
    """

    dim: int
    factor: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t"] | None = None, train: bool = False
    ) -> Float[Array, "b f*t e"]:
        """Stride 2, padding 2, output padding 1 in torch's terms: exactly twice as many frames each time."""
        for index in range(num_halvings(self.factor)):
            suffix = f"_{index}" if index else ""
            x = DoublingConv(self.dim, dtype=self.dtype, name=f"conv{suffix}")(zero_padding(x, mask))
            x = nn.leaky_relu(x, LEAKY_SLOPE)
            x = BatchNorm(name=f"norm{suffix}")(x, train=train)
            mask = None if mask is None else jnp.repeat(mask, 2, axis=1)
        return x


class Resampler(nn.Module):
    """Any other change of rate: linear interpolation with aligned ends, and a convolution at the higher rate.

    Attributes:
        dim: output channels.
        rate: output frames per frame.
        dtype: compute type.
    """

    dim: int
    rate: Fraction
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, train: bool = False) -> Float[Array, "b u e"]:
        """Every window must be full, and its length times `rate` a whole number."""
        if self.rate > 1:
            x = self._resampled(x)
        x = _edge_conv(x, self.dim, 1, train, self.dtype)
        return x if self.rate > 1 else self._resampled(x)

    def _resampled(self, x: Array) -> Array:
        length, new_length = x.shape[1], int(x.shape[1] * self.rate)
        lengths, new_lengths = (jnp.full(x.shape[:1], n, jnp.int32) for n in (length, new_length))
        return resample_linear(x, lengths, new_lengths, new_length)
