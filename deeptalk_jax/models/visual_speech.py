"""Visual speech features of mouth crops, which the lip-reading loss compares (docs/method.md, section 4.2).

The network is a 3-D convolution over five frames, then a ResNet-18 on each frame (Stafylakis and Tzimiropoulos,
Interspeech 2017; with Swish and trained on LRS3: Ma et al., Nature Machine Intelligence 2022). The importer
`interop/visual_speech_file.py` depends on the layer names.
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.types import Array

ACTIVATIONS = ("relu", "swish", "prelu")


class Activation(nn.Module):
    """Activation function.

    Attributes:
        kind: one of `ACTIVATIONS`; "swish" as published, "prelu" for older lip readers.
    """

    kind: str

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Applies the activation.

        Raises:
            ConfigError: `kind` is not one of `ACTIVATIONS`.
        """
        if self.kind not in ACTIVATIONS:
            raise ConfigError(f"activation={self.kind!r} is not one of {ACTIVATIONS}")
        if self.kind == "prelu":
            # One slope per channel, as in the checkpoints; `flax.linen.PReLU` has a single slope.
            slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
            slope = jnp.broadcast_to(slope.astype(x.dtype), x.shape)
            return jnp.where(x >= 0, x, slope * x)
        return nn.relu(x) if self.kind == "relu" else nn.swish(x)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut, which is projected if the shape changes.

    Attributes:
        channels: number of output channels.
        stride: stride of the first convolution and of the shortcut, in pixels.
        activation: one of `ACTIVATIONS`.
        dtype: compute type.
    """

    channels: int
    stride: int
    activation: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b i j d"]:
        """Applies the block to feature maps; the output is `stride` times smaller."""

        def conv(size, stride, name):
            padding = size // 2
            return nn.Conv(
                self.channels,
                (size, size),
                (stride, stride),
                padding=((padding, padding), (padding, padding)),
                use_bias=False,
                dtype=self.dtype,
                name=name,
            )

        shortcut = x
        if self.stride != 1 or x.shape[-1] != self.channels:
            shortcut = conv(1, self.stride, "shortcut")(x)
            shortcut = BatchNorm(name="shortcut_norm")(shortcut, train=train)
        # [b, h, w, c] -> [b, h/stride, w/stride, channels]
        x = BatchNorm(name="norm1")(conv(3, self.stride, "conv1")(x), train=train)
        x = Activation(self.activation, name="activation1")(x)
        x = BatchNorm(name="norm2")(conv(3, 1, "conv2")(x), train=train)
        return Activation(self.activation, name="activation2")(x + shortcut)


class VisualSpeech(nn.Module):
    """Extracts one feature per frame from grey mouth crops; the defaults are the published sizes.

    Attributes:
        front_channels: output channels of the 3-D convolution.
        channels: channels of each stage of the residual network; the last one is the size of the features.
        num_blocks: residual blocks of each stage.
        activation: one of `ACTIVATIONS`.
        mean: grey value subtracted from the frames.
        std: grey value by which the difference is divided.
        dtype: compute type; features are float32.
    """

    front_channels: int = 64
    channels: tuple[int, ...] = (64, 128, 256, 512)
    num_blocks: tuple[int, ...] = (2, 2, 2, 2)
    activation: str = "swish"
    mean: float = 0.421
    std: float = 0.165
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, frames: Float[Array, "b t h w"], *, train: bool = False) -> Float[Array, "b t d"]:
        """Returns features; after normalisation, frames beyond both ends count as zero.

        Args:
            frames: grey values in [0, 1] at 25 Hz, 88 x 88 pixels as published.
            train: whether batch statistics are used and updated.

        Raises:
            ConfigError: `activation` is not one of `ACTIVATIONS`, or `channels` and `num_blocks` differ in length.
        """
        if len(self.channels) != len(self.num_blocks):
            raise ConfigError(f"channels={self.channels} and num_blocks={self.num_blocks} differ in length")
        x = ((frames - self.mean) / self.std).astype(self.dtype)
        # The 3-D convolution of one channel over five frames is computed as a 2-D convolution with the five frames as
        # channels, because XLA's 3-D convolution is much slower on a CPU. The kernel has that shape: [7, 7, 5, c].
        around = jnp.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)))
        # [b, t, h, w] -> [b, t, h, w, 5]
        x = jnp.stack([around[:, shift : shift + x.shape[1]] for shift in range(5)], axis=-1)
        x = nn.Conv(
            self.front_channels,
            (7, 7),
            (2, 2),
            padding=((3, 3), (3, 3)),
            use_bias=False,
            dtype=self.dtype,
            name="front_conv",
        )(rearrange(x, "b t h w c -> (b t) h w c"))
        x = BatchNorm(name="front_norm")(x, train=train)
        x = Activation(self.activation, name="front_activation")(x)
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for stage, (channels, depth) in enumerate(zip(self.channels, self.num_blocks, strict=True)):
            for index in range(depth):
                stride = 2 if stage > 0 and index == 0 else 1
                block = ResidualBlock(
                    channels, stride, self.activation, self.dtype, name=f"stage{stage}_block{index}"
                )
                x = block(x, train=train)
        # [(b t), h/32, w/32, d] -> [b, t, d]
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return rearrange(features, "(b t) d -> b t d", b=frames.shape[0])


class LipReader(nn.Module):
    """Classifies the mouth shape (viseme) of every frame.

    Attributes:
        encoder: network that gives the features that the lip-reading loss compares.
        num_classes: number of viseme classes.
    """

    encoder: VisualSpeech
    num_classes: int

    def setup(self):
        """Creates the layer `classifier`."""
        self.classifier = nn.Dense(self.num_classes)

    def __call__(self, frames: Float[Array, "b t h w"], *, train: bool = False) -> Float[Array, "b t c"]:
        """Returns the logits of every frame."""
        return self.classifier(self.encoder(frames, train=train))

    def features(self, frames: Float[Array, "b t h w"]) -> Float[Array, "b t d"]:
        """Returns the features of every frame in evaluation mode, differentiable with respect to the frames."""
        return self.encoder(frames)
