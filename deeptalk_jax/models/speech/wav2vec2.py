"""wav2vec 2.0 (Baevski et al., NeurIPS 2020), the content encoder of DEEPTalk (docs/method.md, section 5).

Covers the base model (norms after the branches, group norm in the first convolution) and the large models ("stable
layer norm": norms before the branches). Features can be resampled to the rate of the motion between the convolution
stack and the transformer, as DEEPTalk does (section 4).

Departures from the published code: waveforms are normalised per clip instead of over the batch, and padding has no
effect on valid frames. The masking vector and the heads for pre-training are omitted.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import length_mask, zero_padding
from deeptalk_jax.models.cpu_forms import gelu
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.models.resample import resample_linear, resampled_length
from deeptalk_jax.models.speech.encoder_layer import EncoderLayer, keep_or_skip
from deeptalk_jax.models.speech.frontend import (
    KERNELS,
    STRIDES,
    WAV2VEC2_WAVEFORM_EPS,
    ConvFrontend,
    channel_norm,
    fit_length,
    prepare_waveform,
)
from deeptalk_jax.models.speech.grouped_conv import grouped_conv
from deeptalk_jax.types import AUDIO_RATE_HZ, Array, SpeechFeatures


class PositionalConv(nn.Module):
    """Position code from a wide grouped convolution with weight norm, then GELU.

    The gain is one number per kernel tap, because the norm is taken over both channel axes. `flax.linen.WeightNorm`
    names its parameters differently and adds an epsilon to the norm, so imported checkpoints would not be reproduced.

    Attributes:
        kernel: number of taps.
        num_groups: number of groups of channels.
        dtype: compute type; the weight norm is float32.
    """

    kernel: int = 128
    num_groups: int = 16
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b s d"]:
        """Returns the code of every position; `x` must be zero in the padding.

        Raises:
            ConfigError: `num_groups` does not divide the feature size.
        """
        dim = x.shape[-1]
        if dim % self.num_groups:
            raise ConfigError(f"num_groups={self.num_groups} does not divide the feature size {dim}")
        shape = (self.kernel, dim // self.num_groups, dim)
        # Initialised as in the published code: variance 4 / (taps * channels), and a gain equal to the norm of the
        # direction.
        direction = self.param("direction", nn.initializers.normal((4.0 / (self.kernel * dim)) ** 0.5), shape)
        gain = self.param("gain", lambda *_: jnp.sqrt(jnp.sum(direction**2, axis=(1, 2))), shape[:1])
        bias = self.param("bias", nn.initializers.zeros, (dim,))
        # float32, because it is a sum of 37 000 squares.
        size = jnp.sqrt(jnp.sum(direction**2, axis=(1, 2), keepdims=True))
        kernel = direction * (gain[:, None, None] / size)
        # If the kernel is even, one frame less is padded at the end, so that the length is kept.
        padding = (self.kernel // 2, (self.kernel - 1) // 2)
        # A grouped convolution is the fastest general form on a CPU: 86 ms for 10 s of audio, against 223 ms for a sum
        # over taps, 285 ms for unfold and einsum, and 307 ms by FFT.
        y = grouped_conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(1,),
            padding=[padding],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=self.num_groups,
        )
        return gelu(y + bias.astype(self.dtype)[None, None])


class Wav2Vec2(nn.Module):
    """wav2vec 2.0 without its pre-training heads; the defaults are the base model at 50 Hz.

    Attributes:
        num_layers: transformer layers.
        dim: width of the transformer.
        num_heads: attention heads.
        mlp_dim: width of the feed-forward networks.
        conv_channels: channels of the convolution stack.
        kernels: kernel sizes of the convolution stack.
        strides: strides of the convolution stack.
        conv_norm: norm of the convolution stack, "group" or "layer"; see `ConvFrontend`.
        conv_bias: whether the convolution stack has biases.
        stable_layer_norm: whether norms come before the branches, with one more at the end (large models), instead of
            after the branches.
        positional_kernel: taps of the positional convolution.
        positional_groups: groups of the positional convolution.
        norm_eps: added to variances.
        waveform_eps: added to the variance of the waveform; None does not normalise waveforms.
        resample_to_hz: rate of the output, applied before the feature projection; None keeps 50 Hz.
        rounding: rounding of resampled lengths, "published" or "exact"; see `resampled_length`.
        dropout_rate: dropout probability of the transformer's input and branches.
        attention_dropout_rate: dropout probability of the attention weights.
        activation_dropout_rate: dropout probability inside the feed-forward networks.
        projection_dropout_rate: dropout probability after the feature projection.
        layer_drop_rate: probability that a training step skips a layer.
        dtype: compute type; statistics of norms and waveforms, and softmax, are float32.
    """

    num_layers: int = 12
    dim: int = 768
    num_heads: int = 12
    mlp_dim: int = 3072
    conv_channels: int = 512
    kernels: tuple[int, ...] = KERNELS
    strides: tuple[int, ...] = STRIDES
    conv_norm: str = "group"
    conv_bias: bool = False
    stable_layer_norm: bool = False
    positional_kernel: int = 128
    positional_groups: int = 16
    norm_eps: float = 1e-5
    waveform_eps: float | None = WAV2VEC2_WAVEFORM_EPS
    resample_to_hz: float | None = None
    rounding: str = "published"
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    activation_dropout_rate: float = 0.1
    projection_dropout_rate: float = 0.1
    layer_drop_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Size of one output feature."""
        return self.dim

    @property
    def conv_rate_hz(self) -> float:
        """Rate of the convolution stack, 50 Hz by default."""
        return AUDIO_RATE_HZ / math.prod(self.strides)

    @property
    def rate_hz(self) -> float:
        """Rate of the output."""
        return self.resample_to_hz or self.conv_rate_hz

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"] | None = None,
        *,
        num_frames: int | None = None,
        stretch: bool = False,
        train: bool = False,
    ) -> SpeechFeatures:
        """Encodes clips.

        Args:
            waveform: `[b, s]` samples in [-1, 1] at 16 kHz. Zeros are appended to clips shorter than 400 samples.
            num_samples: `[b]` number of valid samples of every clip; None if the batch has no padding.
            num_frames: static length of the output. Every clip is resampled over its own length; then further frames
                are cut, and missing frames are zero with a false mask. None keeps the length that the padded waveform
                gives.
            stretch: whether every clip is stretched to exactly `num_frames` instead, as the published code does when
                it is asked for a length. The rate of the output then depends on the clip.
            train: whether dropout and layer drop are applied (stream `dropout`).

        Returns:
            Features `[b, t, dim]` at `rate_hz` and their mask.

        Raises:
            ConfigError: a field has an unknown value.
            ValueError: `waveform` or `num_samples` has a wrong shape, or `stretch` is true without `num_frames`.
        """
        waveform, num_samples = prepare_waveform(waveform, num_samples, eps=self.waveform_eps)
        # [b, s] -> [b, u, conv_channels] at 50 Hz
        x, lengths = ConvFrontend(
            self.conv_channels,
            self.kernels,
            self.strides,
            self.conv_norm,
            self.conv_bias,
            self.norm_eps,
            self.dtype,
            name="frontend",
        )(waveform, num_samples)
        # [b, u, conv_channels] -> [b, t, conv_channels] at `rate_hz`
        x, mask = self._at_output_rate(x, lengths, num_frames, stretch=stretch)
        self.sow("intermediates", "resampled", x)
        # [b, t, conv_channels] -> [b, t, dim]
        x = channel_norm(self.norm_eps, self.dtype, name="feature_norm")(x)
        x = nn.Dense(self.dim, dtype=self.dtype, name="feature_projection")(x)
        x = zero_padding(Dropout(self.projection_dropout_rate)(x, train=train), mask)
        x = self._transform(x, mask, train=train)
        return SpeechFeatures(zero_padding(x, mask), mask)

    def _at_output_rate(
        self, x: Float[Array, "b s d"], lengths: Int[Array, " b"], num_frames: int | None, *, stretch: bool
    ) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """Resamples every clip over its own length, then cuts or pads it to `num_frames`."""
        if stretch:
            if num_frames is None:
                raise ValueError("stretch=True needs num_frames, the length that every clip is stretched to")
            new_lengths = jnp.full_like(lengths, num_frames)
        elif self.resample_to_hz is None:
            new_lengths = lengths
            num_frames = x.shape[1] if num_frames is None else num_frames
        else:
            # The published rounding needs double precision and lengths may be traced, so they are looked up.
            table = resampled_length(
                np.arange(x.shape[1] + 1),
                from_hz=self.conv_rate_hz,
                to_hz=self.resample_to_hz,
                rounding=self.rounding,
            )
            new_lengths = jnp.asarray(table, jnp.int32)[lengths]
            num_frames = int(table[-1]) if num_frames is None else num_frames
        mask = length_mask(new_lengths, num_frames)
        if new_lengths is lengths:
            return zero_padding(fit_length(x, num_frames), mask), mask
        return resample_linear(x, lengths, new_lengths, num_frames), mask

    def _transform(
        self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"], *, train: bool
    ) -> Float[Array, "b s d"]:
        """Applies the position code, the transformer layers and the layer norm before or after them."""
        x = x + PositionalConv(
            self.positional_kernel, self.positional_groups, self.dtype, name="positional_conv"
        )(x)
        encoder_norm = channel_norm(self.norm_eps, self.dtype, name="encoder_norm")
        if not self.stable_layer_norm:
            x = encoder_norm(x)
        x = Dropout(self.dropout_rate)(x, train=train)
        for index in range(self.num_layers):
            after = EncoderLayer(
                self.num_heads,
                self.mlp_dim,
                self.stable_layer_norm,
                self.norm_eps,
                self.dropout_rate,
                self.attention_dropout_rate,
                self.activation_dropout_rate,
                self.dtype,
                name=f"layer_{index}",
            )(x, mask=mask, train=train)
            if train and self.layer_drop_rate:
                after = keep_or_skip(self.make_rng("dropout"), self.layer_drop_rate, x, after)
            x = after
        return encoder_norm(x) if self.stable_layer_norm else x
