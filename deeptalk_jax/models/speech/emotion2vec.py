"""emotion2vec base (Ma et al., ACL Findings 2024), the audio encoder of the dynamic emotion embedding (DEE).

The network is the audio branch of data2vec 2.0 (Baevski et al., ICML 2023); docs/method.md, section 7, lists layers.
The decoder for pre-training (619,776 parameters) is omitted, so 93,171,212 of 93,790,988 parameters remain.

Departure from the published code, which always gets clips without padding: padding has no effect on valid frames, and
every convolution of the position branch reads zeros there, as at the end of a clip without padding.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from deeptalk_jax.masks import length_mask, zero_padding
from deeptalk_jax.models.attention_bias import alibi_slopes
from deeptalk_jax.models.cpu_forms import gelu
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
    """Returns symmetric ALiBi multiplied by one learned scale per head: `-max(scale_h, 0) * slope_h * |i - j|`.

    Args:
        scale: `[h]` learned scales; negative ones count as zero.
        length: number of frames.
        num_extra_tokens: number e of tokens before the frames, which have no bias.

    Returns:
        `[h, e + length, e + length]` float32, zero in the rows and columns of the extra tokens.
    """
    slopes = jnp.asarray(np.asarray(alibi_slopes(scale.shape[0]), np.float32))
    # Computed inside the compiled program. As a constant it would take 430 MB for one minute of audio.
    position = jnp.arange(length, dtype=jnp.float32)
    distance = jnp.abs(position[:, None] - position[None, :])
    distance = jnp.pad(distance, (num_extra_tokens, 0))
    return -(jnp.maximum(scale.astype(jnp.float32), 0.0) * slopes)[:, None, None] * distance[None]


class PositionBranch(nn.Module):
    """Position code from grouped convolutions, each followed by a layer norm without parameters and GELU.

    Attributes:
        depth: number of convolutions.
        kernel: taps of each convolution, an odd number.
        num_groups: groups of channels of each convolution.
        norm_eps: added to variances.
        dtype: compute type; statistics of norms are float32.
    """

    depth: int = 5
    kernel: int = 19
    num_groups: int = 16
    norm_eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"]) -> Float[Array, "b s d"]:
        """Returns the code to be added to `x`; it is finite but meaningless where `mask` is false."""
        for index in range(self.depth):
            x = nn.Conv(
                x.shape[-1],
                (self.kernel,),
                padding=[(self.kernel // 2, self.kernel // 2)],
                feature_group_count=self.num_groups,
                conv_general_dilated=grouped_conv,
                dtype=self.dtype,
                name=f"conv_{index}",
            )(zero_padding(x, mask))
            x = gelu(channel_norm(self.norm_eps, self.dtype, affine=False, name=f"norm_{index}")(x))
        return x


class Emotion2Vec(nn.Module):
    """emotion2vec without its pre-training decoder; the defaults are the base model.

    Attributes:
        num_prenet_layers: transformer layers named `prenet_0`, ...
        num_layers: transformer layers after the prenet, named `block_0`, ...
        dim: width of the transformer.
        num_heads: attention heads.
        mlp_dim: width of the feed-forward networks.
        conv_channels: channels of the convolution stack.
        kernels: kernel sizes of the convolution stack.
        strides: strides of the convolution stack.
        positional_depth: convolutions of the position branch.
        positional_kernel: taps of each convolution of the position branch.
        positional_groups: groups of each convolution of the position branch.
        num_extra_tokens: learned tokens before the frames, removed from the output.
        norm_eps: added to variances.
        waveform_eps: added to the variance of the waveform; None does not normalise waveforms.
        dropout_rate: dropout probability of the transformer's input and branches.
        attention_dropout_rate: dropout probability of the attention weights.
        activation_dropout_rate: dropout probability inside the feed-forward networks.
        layer_drop_rate: probability that a training step skips a layer.
        dtype: compute type; statistics of norms and waveforms, and softmax, are float32.
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

    @property
    def feature_dim(self) -> int:
        """Size of one output feature."""
        return self.dim

    @property
    def rate_hz(self) -> float:
        """Rate of the output, 50 Hz by default."""
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
            waveform: `[b, s]` samples in [-1, 1] at 16 kHz. Zeros are appended to clips shorter than 400 samples.
            num_samples: `[b]` number of valid samples of every clip; None if the batch has no padding. The published
                code treats padding as sound; pass None to reproduce that.
            num_frames: static length of the output. Further frames are cut after the whole clip has been encoded (the
                published code keeps the first 500), and missing frames are zero with a false mask. None keeps the
                length that the padded waveform gives.
            train: whether dropout and layer drop are applied (stream `dropout`).

        Returns:
            Features `[b, t, dim]` at `rate_hz` and their mask.

        Raises:
            ValueError: `waveform` or `num_samples` has a wrong shape.
        """
        waveform, num_samples = prepare_waveform(waveform, num_samples, eps=self.waveform_eps)
        # [b, s] -> [b, t, conv_channels]
        x, lengths = ConvFrontend(
            self.conv_channels,
            self.kernels,
            self.strides,
            "layer",
            norm_eps=self.norm_eps,
            dtype=self.dtype,
            name="frontend",
        )(waveform, num_samples)
        mask = length_mask(lengths, x.shape[1])
        # [b, t, conv_channels] -> [b, t, dim]
        x = channel_norm(self.norm_eps, self.dtype, name="feature_norm")(x)
        x = nn.Dense(self.dim, dtype=self.dtype, name="feature_projection")(x)
        x = x + PositionBranch(
            self.positional_depth,
            self.positional_kernel,
            self.positional_groups,
            self.norm_eps,
            self.dtype,
            name="position_branch",
        )(x, mask)
        x = self._transform(x, mask, train=train)
        if num_frames is not None:
            x, mask = fit_length(x, num_frames), length_mask(lengths, num_frames)
        return SpeechFeatures(zero_padding(x, mask), mask)

    def _transform(
        self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"], *, train: bool
    ) -> Float[Array, "b s d"]:
        """Adds the extra tokens, applies norm, prenet layers and blocks, and removes the tokens again."""
        batch, length, dim = x.shape
        extra = self.num_extra_tokens
        # Initialised as in pre-training: tokens are zero, scales are one.
        tokens = self.param("extra_tokens", nn.initializers.zeros, (extra, dim))
        scale = self.param("alibi_scale", nn.initializers.ones, (self.num_heads,))
        tokens = jnp.broadcast_to(tokens.astype(x.dtype)[None], (batch, extra, dim))
        x = jnp.concatenate([tokens, x], axis=1)  # [b, e + t, d]
        mask = jnp.pad(mask, ((0, 0), (extra, 0)), constant_values=True)
        bias = scaled_alibi(scale, length, extra)  # [h, e + t, e + t]
        x = channel_norm(self.norm_eps, self.dtype, name="prenet_norm")(x)
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
                self.dtype,
                name=name,
            )(x, bias=bias, mask=mask, train=train)
            if train and self.layer_drop_rate:
                after = keep_or_skip(self.make_rng("dropout"), self.layer_drop_rate, x, after)
            x = after
        return x[:, extra:]
