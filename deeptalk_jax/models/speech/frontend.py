"""Convolution stack from a waveform to 50 Hz features, with waveform normalisation and length arithmetic.

The stack is the feature encoder of wav2vec 2.0 (Baevski et al., NeurIPS 2020, section 2 and appendix B): seven
convolutions with a total stride of 320 samples. emotion2vec (Ma et al., ACL Findings 2024) uses the same stack with
another normalisation.

A clip has the same features alone and in a padded batch: the convolutions do not pad, so a valid frame depends on
samples of its clip only; and the group norm, the one operation over the whole clip, takes its statistics over the valid
frames of the clip.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.cpu_forms import gelu
from deeptalk_jax.types import Array

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)

# The waveform normalisations of the two published encoders differ only in this constant.
WAV2VEC2_WAVEFORM_EPS = 1e-7
LAYER_NORM_WAVEFORM_EPS = 1e-5

NORMS = ("group", "layer")


def receptive_field_samples(kernels: Sequence[int] = KERNELS, strides: Sequence[int] = STRIDES) -> int:
    """Returns the number of samples that one feature depends on: 400 for the published stack."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def fit_length(x: Float[Array, "b s d"], length: int) -> Float[Array, "b length d"]:
    """Cuts the time axis to `length`, or appends zeros to it."""
    return jnp.pad(x, ((0, 0), (0, max(0, length - x.shape[1])), (0, 0)))[:, :length]


def normalise_waveform(
    waveform: Float[Array, "b s"], num_samples: Int[Array, " b"], *, eps: float
) -> Float[Array, "b s"]:
    """Computes `(x - mean) / sqrt(variance + eps)` for every clip over its valid samples.

    Args:
        waveform: `[b, s]` samples; values in the padding are ignored.
        num_samples: `[b]` number of valid samples of every clip.
        eps: `WAV2VEC2_WAVEFORM_EPS` for the normalisation of wav2vec 2.0, `LAYER_NORM_WAVEFORM_EPS` for that of
            emotion2vec.

    Returns:
        `[b, s]` float32, zero in the padding. A clip of one sample, or of silence, becomes zero.
    """
    waveform = waveform.astype(jnp.float32)
    mask = length_mask(num_samples, waveform.shape[1])
    count = jnp.maximum(num_samples, 1).astype(jnp.float32)[:, None]
    mean = jnp.sum(waveform, axis=1, keepdims=True, where=mask) / count
    centred = jnp.where(mask, waveform - mean, 0.0)
    variance = jnp.sum(centred**2, axis=1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + eps)


def prepare_waveform(
    waveform: Float[Array, "b s"], num_samples: Int[Array, " b"] | None, *, eps: float | None
) -> tuple[Float[Array, "b s"], Int[Array, " b"]]:
    """Checks and normalises waveforms, the first step of every speech encoder.

    Args:
        waveform: `[b, s]` samples in [-1, 1] at 16 kHz, s >= 1.
        num_samples: `[b]` number of valid samples; None if the batch has no padding.
        eps: see `normalise_waveform`; None does not normalise and only sets the padding to zero.

    Returns:
        The waveform `[b, s]` in float32, zero in the padding, and the number of valid samples `[b]` as int32.

    Raises:
        ValueError: the waveform is not of rank 2 or is empty, or `num_samples` does not have one entry per clip.
    """
    if waveform.ndim != 2 or not waveform.shape[1]:
        raise ValueError(f"waveform must be [b, s] with at least one sample, got shape {waveform.shape}")
    if num_samples is None:
        num_samples = jnp.full(waveform.shape[:1], waveform.shape[1], jnp.int32)
    if num_samples.shape != waveform.shape[:1]:
        raise ValueError(
            f"num_samples must have shape {waveform.shape[:1]}, one count per clip, got {num_samples.shape}"
        )
    if eps is None:
        mask = length_mask(num_samples, waveform.shape[1])
        waveform = jnp.where(mask, waveform.astype(jnp.float32), 0.0)
    else:
        waveform = normalise_waveform(waveform, num_samples, eps=eps)
    return waveform, num_samples


class ConvLayer(nn.Module):
    """Convolution without padding, optional norm and GELU.

    Attributes:
        channels: number of output channels.
        kernel: kernel size in input frames.
        stride: stride in input frames.
        norm: "group" normalises each channel over the valid frames of the clip, "layer" normalises over channels,
            None does not normalise.
        use_bias: whether the convolution has a bias.
        norm_eps: added to variances.
        dtype: compute type; statistics of norms are float32.
    """

    channels: int
    kernel: int
    stride: int
    norm: str | None
    use_bias: bool = False
    norm_eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], lengths: Int[Array, " b"]) -> Float[Array, "b u e"]:
        """Applies the layer; `lengths` are those of its output, beyond which values are finite but meaningless."""
        x = nn.Conv(
            self.channels,
            (self.kernel,),
            (self.stride,),
            padding="VALID",
            use_bias=self.use_bias,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name="conv",
        )(x)
        if self.norm == "group":
            # The mask must have as many channels as x: Flax splits its last axis into groups too.
            mask = jnp.broadcast_to(length_mask(lengths, x.shape[1])[..., None], x.shape)
            norm = nn.GroupNorm(
                num_groups=None,
                group_size=1,
                epsilon=self.norm_eps,
                use_fast_variance=False,
                dtype=self.dtype,
                name="norm",
            )
            x = norm(x, mask=mask)
        elif self.norm == "layer":
            x = channel_norm(self.norm_eps, self.dtype, name="norm")(x)
        return gelu(x)


def channel_norm(
    eps: float, dtype: jnp.dtype, *, affine: bool = True, name: str | None = None
) -> nn.LayerNorm:
    """Creates a layer norm over the last axis with float32 statistics.

    The variance is computed in two passes: mean(x^2) - mean(x)^2 loses digits if the mean is large, and errors of the
    early layers grow through the stack.
    """
    return nn.LayerNorm(
        epsilon=eps, use_bias=affine, use_scale=affine, use_fast_variance=False, dtype=dtype, name=name
    )


class ConvFrontend(nn.Module):
    """The convolution stack; layers are named `layer_0`, `layer_1`, ...

    Attributes:
        channels: number of channels of every layer.
        kernels: kernel size of every layer.
        strides: stride of every layer.
        norm: "group" normalises the first layer over time (wav2vec 2.0 base); "layer" normalises every layer over
            channels (emotion2vec and the large wav2vec 2.0 models).
        use_bias: whether the convolutions have a bias.
        norm_eps: added to variances.
        dtype: compute type; statistics of norms are float32.
    """

    channels: int = 512
    kernels: tuple[int, ...] = KERNELS
    strides: tuple[int, ...] = STRIDES
    norm: str = "group"
    use_bias: bool = False
    norm_eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "b s"], num_samples: Int[Array, " b"]
    ) -> tuple[Float[Array, "b u d"], Int[Array, " b"]]:
        """Extracts features.

        Args:
            waveform: `[b, s]` normalised samples, zero in the padding.
            num_samples: `[b]` number of valid samples.

        Returns:
            Features `[b, u, d]` and the number of valid ones `[b]`, beyond which they are finite but meaningless. Zeros
            are appended to clips shorter than the receptive field (400 samples, 25 ms), so that every clip has at
            least one feature.

        Raises:
            ConfigError: `norm` is not one of `NORMS`, or `kernels` and `strides` differ in length.
        """
        if self.norm not in NORMS:
            raise ConfigError(f"norm={self.norm!r} is not one of {NORMS}")
        if len(self.kernels) != len(self.strides):
            raise ConfigError(f"kernels={self.kernels} and strides={self.strides} differ in length")
        shortest = receptive_field_samples(self.kernels, self.strides)
        # [b, s] -> [b, s, 1]
        x = fit_length(waveform[..., None], max(shortest, waveform.shape[1])).astype(self.dtype)
        lengths = jnp.maximum(num_samples, shortest)
        # [b, s, 1] -> [b, u, d]
        for index, (kernel, stride) in enumerate(zip(self.kernels, self.strides, strict=True)):
            lengths = (lengths - kernel) // stride + 1
            norm = self.norm if self.norm == "layer" or index == 0 else None
            layer = ConvLayer(
                self.channels,
                kernel,
                stride,
                norm,
                self.use_bias,
                self.norm_eps,
                self.dtype,
                name=f"layer_{index}",
            )
            x = layer(x, lengths)
        return x, lengths
