"""Changes of frame rate in time: the squasher and expander of TH-VQVAE, and the block that every prior is built from.

Implements docs/method.md, section 3. The published layers know a factor of 2 only; larger factors and other rates are
additions, and the first layers keep the published names.
"""

from fractions import Fraction

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import zero_padding
from deeptalk_jax.models.attention_bias import symmetric_alibi
from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.models.cpu_forms import doubling_conv
from deeptalk_jax.models.resample import resample_linear
from deeptalk_jax.models.transformer import TransformerEncoder
from deeptalk_jax.types import MOTION_DIM, Array

LEAKY_SLOPE = 0.2
KERNEL_SIZE = 5
_SMALL_INITIALISER = nn.initializers.variance_scaling(1e-3, "fan_in", "truncated_normal")


class DoublingConv(nn.Module):
    """Transposed convolution of stride 2 that doubles time exactly (in torch's terms: padding 2, output padding 1).

    Computes the numbers of `nn.ConvTranspose(dim, (w,), (2,), padding=((2, w - 2),))` and has its parameters.

    Attributes:
        dim: number of output channels.
        kernel_size: number of taps w, 4 or 5.
        dtype: compute type.
    """

    dim: int
    kernel_size: int = KERNEL_SIZE
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b 2*t e"]:
        """Doubles the number of frames; frames outside of `x` count as zero."""
        shape = (self.kernel_size, x.shape[-1], self.dim)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.dim,))
        x, kernel, bias = (array.astype(self.dtype) for array in (x, kernel, bias))
        return doubling_conv(x, kernel) + bias[None, None]


def num_halvings(factor: int) -> int:
    """Returns the base-2 logarithm of a change of frame rate.

    Raises:
        ConfigError: `factor` is not 2, 4, 8, ...
    """
    if factor < 2 or factor & (factor - 1):
        raise ConfigError(f"frame rates change by powers of two, got a factor of {factor}")
    return factor.bit_length() - 1


def _edge_conv(
    x: Float[Array, "b t d"], dim: int, stride: int, train: bool, dtype: jnp.dtype, suffix: str = ""
) -> Float[Array, "b u e"]:
    """Applies a convolution with replicated edges, LeakyReLU and batch norm, as children of the calling module."""
    half = KERNEL_SIZE // 2
    x = jnp.pad(x, ((0, 0), (half, half), (0, 0)), mode="edge")
    x = nn.Conv(dim, (KERNEL_SIZE,), strides=(stride,), padding="VALID", dtype=dtype, name=f"conv{suffix}")(x)
    return BatchNorm(name=f"norm{suffix}")(nn.leaky_relu(x, LEAKY_SLOPE), train=train)


class Squasher(nn.Module):
    """Divides the frame rate by a power of two.

    The first factor of 2 is a convolution of stride 2 with replicated edges, LeakyReLU and batch norm. Every further
    factor is the same with stride 1, then the maximum over pairs of frames.

    Attributes:
        dim: number of output channels.
        factor: input frames per output frame.
        dtype: compute type.
    """

    dim: int
    factor: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, train: bool = False) -> Float[Array, "b t/f e"]:
        """Squashes windows without padding: padded frames would contribute to the last latent."""
        x = _edge_conv(x, self.dim, 2, train, self.dtype)  # [b, t/2, e]
        for index in range(1, num_halvings(self.factor)):
            x = _edge_conv(x, self.dim, 1, train, self.dtype, f"_{index}")
            # `maximum` instead of `max` over an axis: the gradient of the latter is divided by the number of frames
            # that equal the maximum, which can be zero because of XLA's rounding.
            x = jnp.maximum(x[:, 0::2], x[:, 1::2])
        return x


class Expander(nn.Module):
    """Multiplies the frame rate by a power of two, each factor with a transposed convolution, LeakyReLU and batch norm.

    Attributes:
        dim: number of output channels.
        factor: output frames per input frame.
        dtype: compute type.
    """

    dim: int
    factor: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t"] | None = None, train: bool = False
    ) -> Float[Array, "b f*t e"]:
        """Expands sequences; `mask` is true for valid input frames."""
        for index in range(num_halvings(self.factor)):
            suffix = f"_{index}" if index else ""
            x = DoublingConv(self.dim, dtype=self.dtype, name=f"conv{suffix}")(zero_padding(x, mask))
            x = nn.leaky_relu(x, LEAKY_SLOPE)
            x = BatchNorm(name=f"norm{suffix}")(x, train=train)
            mask = None if mask is None else jnp.repeat(mask, 2, axis=1)
        return x


class Resampler(nn.Module):
    """Changes the frame rate by any factor: linear interpolation with aligned ends, and a convolution.

    The convolution is applied at the higher of the two rates.

    Attributes:
        dim: number of output channels.
        rate: output frames per input frame.
        dtype: compute type.
    """

    dim: int
    rate: Fraction
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, train: bool = False) -> Float[Array, "b u e"]:
        """Resamples windows without padding; t * rate must be an integer."""
        if self.rate > 1:
            x = self._resampled(x)
        x = _edge_conv(x, self.dim, 1, train, self.dtype)
        return x if self.rate > 1 else self._resampled(x)

    def _resampled(self, x: Float[Array, "b t d"]) -> Float[Array, "b u d"]:
        length, new_length = x.shape[1], int(x.shape[1] * self.rate)
        lengths, new_lengths = (jnp.full(x.shape[:1], n, jnp.int32) for n in (length, new_length))
        return resample_linear(x, lengths, new_lengths, new_length)


class TemporalBlock(nn.Module):
    """Change of frame rate, linear map and one transformer layer with symmetric ALiBi.

    Attributes:
        dim: number of channels after the change of rate.
        mlp_dim: feed-forward width.
        rate: output frames per input frame: 1/2, 1/4, ... (`Squasher`), 2, 4, ... (`Expander`), or any other
            (`Resampler`).
        num_heads: attention heads.
        dropout_rate: dropout probability of the transformer layer.
        dtype: compute type.
    """

    dim: int
    mlp_dim: int
    rate: Fraction
    num_heads: int = 8
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t"] | None = None, train: bool = False
    ) -> Float[Array, "b u e"]:
        """Returns u = t * rate positions; `mask` (valid input positions) is used by the expander only."""
        # [b, t, d] -> [b, u, e]
        up, down = self.rate.numerator, self.rate.denominator
        if down == 1:
            x = Expander(self.dim, up, self.dtype, name="expander")(x, mask=mask, train=train)
            mask = None if mask is None else jnp.repeat(mask, up, axis=1)
        elif up == 1:
            x = Squasher(self.dim, down, self.dtype, name="squasher")(x, train=train)
        else:
            x = Resampler(self.dim, self.rate, self.dtype, name="resampler")(x, train=train)
        x = nn.Dense(self.dim, dtype=self.dtype, name="linear")(x)
        bias = symmetric_alibi(self.num_heads, x.shape[1])  # [h, u, u]
        return TransformerEncoder(
            1, self.num_heads, self.mlp_dim, "gelu", self.dropout_rate, self.dtype, name="transformer"
        )(x, bias=bias, mask=mask, train=train)


def motion_output() -> nn.Conv:
    """Creates the last layer of every prior, from decoded features to motion `[b, t, 53]`.

    It is initialised close to the neutral face: at unit scale the jaw would start rotated by a radian, from where the
    vertex error does not lead back. It is computed in float32 even if the other layers are bfloat16, which would round
    a jaw angle of 0.3 rad by up to 0.001 rad and so move the chin by a tenth of a millimetre.
    """
    return nn.Conv(
        MOTION_DIM, (KERNEL_SIZE,), padding=((2, 2),), kernel_init=_SMALL_INITIALISER, dtype=jnp.float32
    )


def check_windows(motion: Float[Array, "b t 53"], multiple: int) -> None:
    """Checks the shape of the motion that a prior encodes.

    Raises:
        ValueError: the number of frames is not a multiple of `multiple`, or a frame does not have 53 numbers.
    """
    if motion.shape[1] % multiple or motion.shape[-1] != MOTION_DIM:
        raise ValueError(
            f"motion must be [b, t, {MOTION_DIM}] with t a multiple of {multiple}, got {motion.shape}"
        )
