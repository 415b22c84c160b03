"""wav2vec 2.0 (Baevski et al., NeurIPS 2020) as the content encoder of DEEPTalk.

Covers the base model (norms after the branches, group norm in front) and the large ones ("stable layer norm":
norms before the branches). Between convolution stack and transformer the features may be resampled to the
rate of the motion, as DEEPTalk does (SPEC section 4).

Departures from the published code: waveforms are normalised per clip, not over the batch, and padding never
reaches a valid frame. The masking vector and the heads of pre-training are left out.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from deeptalk_jax.masks import length_mask, zero_padding
from deeptalk_jax.models.activations import gelu
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

    The gain is one number per kernel tap: the norm runs over both channel axes. `lax.conv_general_dilated` with
    groups is the fastest form on CPU (10 s of audio: 86 ms; unfold and einsum 285 ms, sum over taps 223 ms, FFT
    307 ms; one convolution per group 46 ms, but five times slower on short batches).

    Attributes:
        kernel: taps, 128.
        num_groups: groups of channels, 16.
        dtype: compute type.
        param_dtype: type of the stored weights.
    """

    kernel: int = 128
    num_groups: int = 16
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"]) -> Float[Array, "b s d"]:
        """The code of every position; `x` must be zero in the padding."""
        dim = x.shape[-1]
        if dim % self.num_groups:
            raise ValueError(f"num_groups={self.num_groups} does not divide the feature size {dim}")
        shape = (self.kernel, dim // self.num_groups, dim)
        # The usual start: variance 4 / (taps * channels), and a gain that leaves the direction's size as it
        # is.
        direction = self.param(
            "direction", nn.initializers.normal((4.0 / (self.kernel * dim)) ** 0.5), shape, self.param_dtype
        )
        gain = self.param(
            "gain", lambda *_: jnp.sqrt(jnp.sum(direction**2, axis=(1, 2))), shape[:1], self.param_dtype
        )
        bias = self.param("bias", nn.initializers.zeros, (dim,), self.param_dtype)
        # float32: a sum of 37 000 squares.
        size = jnp.sqrt(jnp.sum(direction.astype(jnp.float32) ** 2, axis=(1, 2), keepdims=True))
        kernel = direction * (gain[:, None, None] / size)
        # One tap less behind than in front when the kernel is even, so that the length stays.
        padding = (self.kernel // 2, (self.kernel - 1) // 2)
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
        kernels: its kernel sizes.
        strides: its strides.
        conv_norm: its norm, `group` or `layer`; see `ConvFrontend`.
        conv_bias: whether its convolutions have a bias.
        stable_layer_norm: norms before the branches and one at the end (large models) instead of after them.
        positional_kernel: taps of the positional convolution.
        positional_groups: its groups.
        norm_eps: added to variances.
        waveform_eps: added to the variance of the waveform; None feeds samples as they come.
        resample_to_hz: rate of the output, reached before the feature projection; None keeps 50 Hz.
        rounding: how resampled lengths are rounded, `published` or `exact`; see `resampled_length`.
        dropout_rate: dropout of the transformer's input and branches.
        attention_dropout_rate: dropout of the attention weights.
        activation_dropout_rate: dropout inside the feed-forward networks.
        projection_dropout_rate: dropout after the feature projection.
        layer_drop_rate: probability that a training step skips a layer.
        dtype: compute type; norms, softmax and waveform statistics are float32 at all times.
        param_dtype: type of the stored weights.
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
    param_dtype: jnp.dtype = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Size of one output feature."""
        return self.dim

    @property
    def conv_rate_hz(self) -> float:
        """Rate of the convolution stack: 50 Hz."""
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
            waveform: `[b, s]` float32 in [-1, 1] at 16 kHz. A clip under 400 samples counts as 400, zeros
                behind.
            num_samples: `[b]` valid samples of every clip; None if the batch has no padding.
            num_frames: static length of the output. After every clip is resampled over its own length, frames
                beyond are cut and missing ones filled with zeros, whose mask is false. None keeps what the
                longest possible clip gives.
            stretch: spread every clip over exactly `num_frames` instead, which is what the published code does
                when asked for a length; the rate of the output then depends on the clip.
            train: switches dropout and layer drop on (stream `dropout`).

        Returns:
            Features `[b, s', dim]` at `rate_hz` and their mask.

        Raises:
            ValueError: a waveform or a count of the wrong shape, a field with an unknown value, or `stretch`
                without a length.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        waveform, num_samples = prepare_waveform(waveform, num_samples, eps=self.waveform_eps)
        # [b s] -> [b s' conv_channels] at 50 Hz
        x, lengths = ConvFrontend(
            self.conv_channels,
            self.kernels,
            self.strides,
            self.conv_norm,
            self.conv_bias,
            self.norm_eps,
            name="frontend",
            **types,
        )(waveform, num_samples)
        x, mask = self._at_output_rate(x, lengths, num_frames, stretch=stretch)
        self.sow("intermediates", "resampled", x)
        # [b s' conv_channels] -> [b s' dim]
        x = channel_norm(self.norm_eps, **types, name="feature_norm")(x)
        x = nn.Dense(self.dim, name="feature_projection", **types)(x)
        x = zero_padding(Dropout(self.projection_dropout_rate)(x, train=train), mask)
        x = self._transform(x, mask, train=train)
        return SpeechFeatures(zero_padding(x, mask), mask)

    def _at_output_rate(
        self, x: Float[Array, "b s d"], lengths: Int[Array, " b"], num_frames: int | None, *, stretch: bool
    ) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
        """Resamples every clip over its own length, then cuts or fills to `num_frames`."""
        if stretch:
            if num_frames is None:
                raise ValueError("stretch=True needs num_frames, the length to stretch every clip to")
            new_lengths = jnp.full_like(lengths, num_frames)
        elif self.resample_to_hz is None:
            new_lengths = lengths
            num_frames = x.shape[1] if num_frames is None else num_frames
        else:
            # Lengths may be traced, and the published rounding needs double precision: look them up.
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
        """Position code, transformer layers and the one layer norm outside of them."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = x + PositionalConv(
            self.positional_kernel, self.positional_groups, name="positional_conv", **types
        )(x)
        encoder_norm = channel_norm(self.norm_eps, **types, name="encoder_norm")
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
                name=f"layer_{index}",
                **types,
            )(x, mask=mask, train=train)
            if train and self.layer_drop_rate:
                after = keep_or_skip(self.make_rng("dropout"), self.layer_drop_rate, x, after)
            x = after
        return encoder_norm(x) if self.stable_layer_norm else x
