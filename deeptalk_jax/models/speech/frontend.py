"""From a waveform to 50 Hz features: normalisation, length arithmetic and the strided convolution stack.

The stack is the feature encoder of wav2vec 2.0 (Baevski et al., NeurIPS 2020, section 2 and appendix B):
seven convolutions whose strides multiply to 320 samples. emotion2vec (Ma et al., ACL Findings 2024) uses the
same one with another normalisation.

Padded batches: the convolutions do not pad, so a frame that a clip owns sees samples of that clip only. The
one operation that mixes the whole clip, the group norm, takes its statistics over the clip's valid frames.
Hence a clip gives the same features alone and in a padded batch.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.activations import gelu
from deeptalk_jax.types import Array

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)

# The two waveform normalisations of the published models differ in this constant only.
WAV2VEC2_WAVEFORM_EPS = 1e-7
LAYER_NORM_WAVEFORM_EPS = 1e-5

NORMS = ("group", "layer")


def receptive_field_samples(kernels: Sequence[int] = KERNELS, strides: Sequence[int] = STRIDES) -> int:
    """Samples that one feature sees: 400 for the published stack."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def num_features(
    num_samples: int | np.ndarray | Array,
    kernels: Sequence[int] = KERNELS,
    strides: Sequence[int] = STRIDES,
) -> int | np.ndarray | Array:
    """Number of features that the stack gives for a clip.

    A clip shorter than the receptive field (400 samples, 25 ms) counts as if zeros followed it up to that
    length, which is what `ConvFrontend` does to it: every clip has at least one feature.

    Args:
        num_samples: length of the clip, or an integer array of lengths; a traced array is fine.
        kernels: kernel sizes of the stack.
        strides: strides of the stack.

    Returns:
        The count, of the type that came in.
    """
    shortest = receptive_field_samples(kernels, strides)
    if isinstance(num_samples, int):
        num = max(num_samples, shortest)
    else:
        maximum = jnp.maximum if isinstance(num_samples, jax.Array) else np.maximum
        num = maximum(num_samples, shortest)
    for kernel, stride in zip(kernels, strides, strict=True):
        num = (num - kernel) // stride + 1
    return num


def fit_length(x: Float[Array, "b s d"], length: int) -> Float[Array, "b length d"]:
    """Cuts or fills with zeros at the end of the time axis."""
    return jnp.pad(x, ((0, 0), (0, max(0, length - x.shape[1])), (0, 0)))[:, :length]


def normalise_waveform(
    waveform: Float[Array, "b s"], num_samples: Int[Array, " b"], *, eps: float
) -> Float[Array, "b s"]:
    """`(x - mean) / sqrt(variance + eps)` of every clip over its own samples; zeros in the padding.

    Args:
        waveform: `[b, s]` samples; what stands in the padding does not matter.
        num_samples: `[b]` valid samples of every clip.
        eps: `WAV2VEC2_WAVEFORM_EPS` is the wav2vec 2.0 processor, `LAYER_NORM_WAVEFORM_EPS` the layer norm of
            the emotion encoder.

    Returns:
        `[b, s]` float32. A clip of one sample, or of silence, becomes zeros.
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
    """Lengths, normalisation and zeros behind clips: what both encoders do first.

    Args:
        waveform: `[b, s]` samples in [-1, 1] at 16 kHz, s >= 1.
        num_samples: `[b]` valid samples, or None if all are.
        eps: see `normalise_waveform`; None leaves the values as they are and only clears the padding.

    Returns:
        `[b, s]` float32, zero in the padding, and `[b]` int32.

    Raises:
        ValueError: the waveform is not of rank 2, or is empty.
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


class TimeNorm(nn.Module):
    """Group norm with one channel per group: statistics over the valid time of each clip and channel.

    Attributes:
        epsilon: added to the variance.
        param_dtype: type of the stored gain and bias.
    """

    epsilon: float = 1e-5
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], lengths: Int[Array, " b"]) -> Float[Array, "b s d"]:
        """Normalises; positions past `lengths` come out finite but meaningless."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], self.param_dtype)
        mask = length_mask(lengths, x.shape[1])[..., None]
        count = jnp.maximum(lengths, 1).astype(jnp.float32)[:, None, None]
        # float32 statistics: a sum over 10^5 frames is beyond bfloat16.
        values = x.astype(jnp.float32)
        mean = jnp.sum(values, axis=1, keepdims=True, where=mask) / count
        variance = jnp.sum((values - mean) ** 2, axis=1, keepdims=True, where=mask) / count
        normed = (values - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (normed * scale[None, None] + bias[None, None]).astype(x.dtype)


class ConvLayer(nn.Module):
    """Convolution without padding, optional norm, GELU.

    Attributes:
        channels: output channels.
        kernel: kernel size in input frames.
        stride: stride in input frames.
        norm: `group` (`TimeNorm`), `layer` (over channels) or None.
        use_bias: whether the convolution has a bias.
        norm_eps: added to variances.
        dtype: compute type.
        param_dtype: type of the stored weights.
    """

    channels: int
    kernel: int
    stride: int
    norm: str | None
    use_bias: bool = False
    norm_eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], lengths: Int[Array, " b"]) -> Float[Array, "b s d"]:
        """Applies the layer; `lengths` are those of its output."""
        x = nn.Conv(
            self.channels,
            (self.kernel,),
            (self.stride,),
            padding="VALID",
            use_bias=self.use_bias,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )(x)
        if self.norm == "group":
            x = TimeNorm(self.norm_eps, self.param_dtype, name="norm")(x, lengths)
        elif self.norm == "layer":
            x = channel_norm(self.norm_eps, self.dtype, self.param_dtype, name="norm")(x)
        return gelu(x)


def channel_norm(
    eps: float, dtype: jnp.dtype, param_dtype: jnp.dtype, *, affine: bool = True, name: str | None = None
) -> nn.LayerNorm:
    """Layer norm over the last axis.

    The variance is taken in two passes: mean(x^2) - mean(x)^2 loses digits where the mean is large, and errors
    of the early layers grow through the stack.
    """
    return nn.LayerNorm(
        epsilon=eps,
        use_bias=affine,
        use_scale=affine,
        use_fast_variance=False,
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
    )


class ConvFrontend(nn.Module):
    """The convolution stack; layers are named `layer_0`, `layer_1`, ...

    Attributes:
        channels: channels of every layer.
        kernels: kernel size of every layer.
        strides: stride of every layer.
        norm: `group` norms the first layer over time (wav2vec 2.0 base); `layer` norms every layer over
            channels (emotion2vec, and the large wav2vec 2.0 models).
        use_bias: whether the convolutions have a bias.
        norm_eps: added to variances.
        dtype: compute type.
        param_dtype: type of the stored weights.
    """

    channels: int = 512
    kernels: tuple[int, ...] = KERNELS
    strides: tuple[int, ...] = STRIDES
    norm: str = "group"
    use_bias: bool = False
    norm_eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "b s"], num_samples: Int[Array, " b"]
    ) -> tuple[Float[Array, "b s d"], Int[Array, " b"]]:
        """Extracts features.

        Args:
            waveform: `[b, s]` normalised samples, zero in the padding.
            num_samples: `[b]` valid samples.

        Returns:
            `[b, s', d]` features with s' = `num_features(s)`, and `[b]` the count of valid ones. Features past
            the count are finite but meaningless.

        Raises:
            ValueError: `norm` is unknown, or kernels and strides differ in number.
        """
        if self.norm not in NORMS:
            raise ValueError(f"norm={self.norm!r} is not one of {NORMS}")
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels do not go with {len(self.strides)} strides")
        shortest = receptive_field_samples(self.kernels, self.strides)
        # [b s] -> [b s 1]
        x = fit_length(waveform[..., None], max(shortest, waveform.shape[1])).astype(self.dtype)
        lengths = jnp.maximum(num_samples, shortest)
        for index, (kernel, stride) in enumerate(zip(self.kernels, self.strides, strict=True)):
            lengths = (lengths - kernel) // stride + 1
            norm = self.norm if self.norm == "layer" or index == 0 else None
            x = ConvLayer(
                self.channels,
                kernel,
                stride,
                norm,
                self.use_bias,
                self.norm_eps,
                self.dtype,
                self.param_dtype,
                name=f"layer_{index}",
            )(x, lengths)
        return x, lengths
