"""Convolutions that halve or double the frame rate: the squasher and expander of TH-VQVAE (SPEC section 3)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.types import Array

LEAKY_SLOPE = 0.2
KERNEL_SIZE = 5


def zero_padded(x: Float[Array, "b t d"], mask: Bool[Array, "b t"] | None) -> Float[Array, "b t d"]:
    """`x` with zeros past each clip's end, so that a convolution sees what it sees at the end of a lone clip."""
    return x if mask is None else jnp.where(mask[..., None], x, 0.0)


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
        x = nn.ConvTranspose(self.dim, (KERNEL_SIZE,), strides=(2,), padding=((2, 3),), name="conv")(
            zero_padded(x, mask)
        )
        return BatchNorm(axis_name=self.axis_name, name="norm")(nn.leaky_relu(x, LEAKY_SLOPE), train=train)
