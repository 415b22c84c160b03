"""Convolutions that halve or double the frame rate: the squasher and expander of TH-VQVAE (SPEC section 3)."""

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.models.masks import zero_padding
from deeptalk_jax.types import Array

LEAKY_SLOPE = 0.2
KERNEL_SIZE = 5


class DoublingConv(nn.Module):
    """Transposed convolution of stride 2 and padding 2 that doubles time exactly.

    The numbers of `nn.ConvTranspose` with `padding=((2, kernel_size - 2),)`, computed as one ordinary convolution
    that gives the even and the odd output frames as channels: XLA's dilated convolution is 20 times slower on a
    CPU.

    Attributes:
        dim: output channels.
        kernel_size: 4 or 5 taps.
    """

    dim: int
    kernel_size: int = KERNEL_SIZE

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b 2t e"]:
        """Frames before the first and after the last count as zero."""
        shape = (self.kernel_size, x.shape[-1], self.dim)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.dim,))
        # Output 2m sees taps 0, 2, 4 at inputs m - 1, m, m + 1; output 2m + 1 sees taps 1, 3 at inputs m, m + 1.
        even, odd = kernel[0::2], kernel[1::2]
        even = jnp.pad(even, ((0, 3 - even.shape[0]), (0, 0), (0, 0)))
        odd = jnp.pad(odd, ((1, 0), (0, 0), (0, 0)))
        phases = jax.lax.conv_general_dilated(
            x,
            jnp.concatenate([even, odd], axis=-1),
            window_strides=(1,),
            padding=((1, 1),),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )
        return einops.rearrange(phases, "b t (p e) -> b (t p) e", p=2) + bias[None, None]


class Squasher(nn.Module):
    """Halves time: convolution of stride 2 over replicated edges, LeakyReLU, batch norm.

    Attributes:
        dim: output channels.
        axis_name: pmap axis of the batch statistics.
    """

    dim: int
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, train: bool = False) -> Float[Array, "b t/2 e"]:
        """Every window must be full: padded frames would enter the last latent."""
        half = KERNEL_SIZE // 2
        x = jnp.pad(x, ((0, 0), (half, half), (0, 0)), mode="edge")
        x = nn.Conv(self.dim, (KERNEL_SIZE,), strides=(2,), padding="VALID", name="conv")(x)
        return BatchNorm(axis_name=self.axis_name, name="norm")(nn.leaky_relu(x, LEAKY_SLOPE), train=train)


class Expander(nn.Module):
    """Doubles time: transposed convolution, LeakyReLU, batch norm.

    Attributes:
        dim: output channels.
        axis_name: pmap axis of the batch statistics.
    """

    dim: int
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t"] | None = None, train: bool = False
    ) -> Float[Array, "b 2t e"]:
        """Stride 2, padding 2, output padding 1 in torch's terms: exactly twice as many frames."""
        x = DoublingConv(self.dim, name="conv")(zero_padding(x, mask))
        return BatchNorm(axis_name=self.axis_name, name="norm")(nn.leaky_relu(x, LEAKY_SLOPE), train=train)
