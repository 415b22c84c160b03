"""emotion2vec base (Ma et al., ACL Findings 2024), the audio encoder of the dynamic emotion embedding.

Its network is the audio branch of data2vec 2.0 (Baevski et al., ICML 2023); SPEC section 7 lists the layers.
The decoder of 619,776 weights that pre-training needs is left out: 93,171,212 of the 93,790,988 weights
remain.

Departure from the published code: padding is honoured (the published emotion encoder always gets full clips),
and every convolution of the position branch sees zeros there, as at the end of a clip that stands alone.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from deeptalk_jax.masks import length_mask, zero_padding
from deeptalk_jax.models.activations import gelu
from deeptalk_jax.models.attention_bias import alibi_slopes
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.models.speech.encoder_layer import EncoderLayer, keep_or_skip
from deeptalk_jax.models.speech.frontend import (
    KERNELS,
    LAYER_NORM_WAVEFORM_EPS,
    STRIDES,
    ConvFrontend,
    channel_norm,
    fit_length,
    prepare_waveform,
)
from deeptalk_jax.models.speech.grouped_conv import grouped_conv
from deeptalk_jax.types import AUDIO_RATE_HZ, Array, SpeechFeatures


def scaled_alibi(
    scale: Float[Array, " h"], length: int, num_extra_tokens: int
) -> Float[Array, "h length length"]:
    """Symmetric ALiBi times one learned scale per head, with neutral extra tokens in front.

    `-max(scale_h, 0) * slope_h * |i - j|`, zero in the rows and columns of the extra tokens.

    Args:
        scale: `[h]`, may be negative.
        length: number of frames.
        num_extra_tokens: tokens in front of them.

    Returns:
        `[h, e + length, e + length]` float32.
    """
    slopes = jnp.asarray(np.asarray(alibi_slopes(scale.shape[0]), np.float32))
    # Built from `arange` inside the program: as a constant it would weigh 430 MB for one minute of audio.
    position = jnp.arange(length, dtype=jnp.float32)
    distance = jnp.abs(position[:, None] - position[None, :])
    distance = jnp.pad(distance, (num_extra_tokens, 0))
    return -(jnp.maximum(scale.astype(jnp.float32), 0.0) * slopes)[:, None, None] * distance[None]


class PositionBranch(nn.Module):
    """Grouped convolutions, each followed by a layer norm without weights and GELU.

    Attributes:
        depth: number of convolutions.
        kernel: taps of each, an odd number.
        num_groups: groups of channels.
        norm_eps: added to variances.
        dtype: compute type.
        param_dtype: type of the stored weights.
    """

    depth: int = 5
    kernel: int = 19
    num_groups: int = 16
    norm_eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"]) -> Float[Array, "b s d"]:
        """What is to be added to `x`; finite but meaningless where `mask` is false."""
        for index in range(self.depth):
            x = nn.Conv(
                x.shape[-1],
                (self.kernel,),
                padding=[(self.kernel // 2, self.kernel // 2)],
                feature_group_count=self.num_groups,
                conv_general_dilated=grouped_conv,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"conv_{index}",
            )(zero_padding(x, mask))
            x = channel_norm(self.norm_eps, self.dtype, self.param_dtype, affine=False, name=f"norm_{index}")(
                x
            )
            x = gelu(x)
        return x


class Emotion2Vec(nn.Module):
    """emotion2vec without its pre-training decoder; the defaults are the base model.

    Attributes:
        num_prenet_layers: transformer layers named `prenet_0`, ...
        num_layers: transformer layers after them, named `block_0`, ...
        dim: width of the transformer.
        num_heads: attention heads.
        mlp_dim: width of the feed-forward networks.
        conv_channels: channels of the convolution stack.
        kernels: its kernel sizes.
        strides: its strides.
        positional_depth: convolutions of the position branch.
        positional_kernel: taps of each.
        positional_groups: groups of each.
        num_extra_tokens: learned tokens in front of the frames, dropped from the output.
        norm_eps: added to variances.
        waveform_eps: added to the variance of the waveform; None feeds samples as they come.
        dropout_rate: dropout of the transformer's input and branches.
        attention_dropout_rate: dropout of the attention weights.
        activation_dropout_rate: dropout inside the feed-forward networks.
        layer_drop_rate: probability that a training step skips a layer.
        dtype: compute type; norms, softmax and waveform statistics are float32 at all times.
        param_dtype: type of the stored weights.
    """

    num_prenet_layers: int = 4
    num_layers: int = 8
    dim: int = 768
    num_heads: int = 12
    mlp_dim: int = 3072
    conv_channels: int = 512
    kernels: tuple[int, ...] = KERNELS
    strides: tuple[int, ...] = STRIDES
    positional_depth: int = 5
    positional_kernel: int = 19
    positional_groups: int = 16
    num_extra_tokens: int = 10
    norm_eps: float = 1e-5
    waveform_eps: float | None = LAYER_NORM_WAVEFORM_EPS
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    activation_dropout_rate: float = 0.0
    layer_drop_rate: float = 0.05
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Size of one output feature."""
        return self.dim

    @property
    def rate_hz(self) -> float:
        """Rate of the output: 50 Hz."""
        return AUDIO_RATE_HZ / math.prod(self.strides)

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"] | None = None,
        *,
        num_frames: int | None = None,
        train: bool = False,
    ) -> SpeechFeatures:
        """Encodes clips.

        Args:
            waveform: `[b, s]` float32 in [-1, 1] at 16 kHz. A clip under 400 samples counts as 400, zeros
                behind.
            num_samples: `[b]` valid samples of every clip; None if the batch has no padding. The published
                emotion encoder counts padding as sound: pass None to repeat that.
            num_frames: static length of the output: later frames are cut **after** the whole clip is encoded
                (the published emotion encoder keeps the first 500), missing ones are zero with a false mask.
                None keeps what the longest possible clip gives.
            train: switches dropout and layer drop on (stream `dropout`).

        Returns:
            Features `[b, s', dim]` at `rate_hz` and their mask.

        Raises:
            ValueError: a waveform or a count of the wrong shape.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        waveform, num_samples = prepare_waveform(waveform, num_samples, eps=self.waveform_eps)
        # [b s] -> [b s' conv_channels]
        x, lengths = ConvFrontend(
            self.conv_channels,
            self.kernels,
            self.strides,
            "layer",
            norm_eps=self.norm_eps,
            name="frontend",
            **types,
        )(waveform, num_samples)
        mask = length_mask(lengths, x.shape[1])
        # [b s' conv_channels] -> [b s' dim]
        x = channel_norm(self.norm_eps, **types, name="feature_norm")(x)
        x = nn.Dense(self.dim, name="feature_projection", **types)(x)
        x = x + PositionBranch(
            self.positional_depth,
            self.positional_kernel,
            self.positional_groups,
            self.norm_eps,
            name="position_branch",
            **types,
        )(x, mask)
        x = self._transform(x, mask, train=train)
        if num_frames is not None:
            x, mask = fit_length(x, num_frames), length_mask(lengths, num_frames)
        return SpeechFeatures(zero_padding(x, mask), mask)

    def _transform(
        self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"], *, train: bool
    ) -> Float[Array, "b s d"]:
        """Extra tokens, norm, prenet layers and blocks; the tokens are gone from what comes back."""
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        batch, length, dim = x.shape
        extra = self.num_extra_tokens
        # Pre-training starts the tokens at zero, and the scales at one.
        tokens = self.param("extra_tokens", nn.initializers.zeros, (extra, dim), self.param_dtype)
        scale = self.param("alibi_scale", nn.initializers.ones, (self.num_heads,), self.param_dtype)
        tokens = jnp.broadcast_to(tokens.astype(x.dtype)[None], (batch, extra, dim))
        x = jnp.concatenate([tokens, x], axis=1)
        mask = jnp.pad(mask, ((0, 0), (extra, 0)), constant_values=True)
        bias = scaled_alibi(scale, length, extra)
        x = channel_norm(self.norm_eps, **types, name="prenet_norm")(x)
        x = Dropout(self.dropout_rate)(x, train=train)
        names = [f"prenet_{i}" for i in range(self.num_prenet_layers)]
        names += [f"block_{i}" for i in range(self.num_layers)]
        for name in names:
            after = EncoderLayer(
                self.num_heads,
                self.mlp_dim,
                False,
                self.norm_eps,
                self.dropout_rate,
                self.attention_dropout_rate,
                self.activation_dropout_rate,
                name=name,
                **types,
            )(x, bias=bias, mask=mask, train=train)
            if train and self.layer_drop_rate:
                after = keep_or_skip(self.make_rng("dropout"), self.layer_drop_rate, x, after)
            x = after
        return x[:, extra:]
