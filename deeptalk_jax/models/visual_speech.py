"""Visual speech features: what a network that reads lips sees in a mouth (SPEC section 4).

A 3-D convolution over five frames, then a ResNet-18 on each frame (Stafylakis and Tzimiropoulos, Interspeech 2017; with
Swish, and trained on LRS3: Ma et al., Nature Machine Intelligence 2022). Names of the layers are those that the
importer fills, `interop/visual_speech_file.py`.
"""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Float

from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.types import Array

ACTIVATIONS = ("relu", "swish", "prelu")


class Activation(nn.Module):
    """Nonlinearity of kind relu, swish or prelu (one slope per channel)."""

    kind: str

    @nn.compact
    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "... d"]:
        """Applies it."""
        if self.kind not in ACTIVATIONS:
            raise ValueError(f"activation={self.kind!r} is not one of {ACTIVATIONS}")
        if self.kind == "prelu":
            slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
            slope = jnp.broadcast_to(slope.astype(x.dtype), x.shape)
            return jnp.where(x >= 0, x, slope * x)
        return nn.relu(x) if self.kind == "relu" else nn.swish(x)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut, which is projected where the shape changes.

    Attributes:
        channels: of the output.
        stride: of the first convolution and of the shortcut.
        activation: one of `ACTIVATIONS`.
        dtype: of the arithmetic.
    """

    channels: int
    stride: int
    activation: str
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool = False) -> Float[Array, "b i j d"]:
        """Frames to frames, `stride` times smaller."""

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
        x = BatchNorm(name="norm1")(conv(3, self.stride, "conv1")(x), train=train)
        x = Activation(self.activation, name="activation1")(x)
        x = BatchNorm(name="norm2")(conv(3, 1, "conv2")(x), train=train)
        return Activation(self.activation, name="activation2")(x + shortcut)


class VisualSpeech(nn.Module):
    """Features of every frame of a grey mouth crop.

    Attributes:
        front_channels: of the 3-D convolution.
        channels: of each stage of the residual network; the last is the dimension of the features.
        num_blocks: in each stage.
        activation: one of `ACTIVATIONS`.
        mean: grey value that is taken off the pictures.
        std: what they are divided by.
        dtype: of the arithmetic.
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
        """Features; frames beyond both ends count as zeros after normalisation.

        Args:
            frames: grey in [0, 1] at 25 Hz, 88 x 88 as published.
            train: use and update the statistics of the batch.

        Raises:
            ValueError: an unknown activation, or stages and their numbers of blocks differ.
        """
        if len(self.channels) != len(self.num_blocks):
            raise ValueError(f"channels {self.channels} and num_blocks {self.num_blocks} differ in length")
        x = ((frames - self.mean) / self.std).astype(self.dtype)
        # The 3-D convolution of one channel is a 2-D convolution of five frames as channels, which is far quicker.
        around = jnp.pad(x, ((0, 0), (2, 2), (0, 0), (0, 0)))
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
        features = jnp.mean(x.astype(jnp.float32), axis=(1, 2))
        return rearrange(features, "(b t) d -> b t d", b=frames.shape[0])


class LipReader(nn.Module):
    """Tells the mouth shape class of every frame.

    Attributes:
        encoder: gives the features that the lip-reading loss compares.
        num_classes: of mouth shapes.
    """

    encoder: VisualSpeech
    num_classes: int

    def setup(self):
        """Layers `encoder` and `classifier`."""
        self.classifier = nn.Dense(self.num_classes)

    def __call__(self, frames: Float[Array, "b t h w"], *, train: bool = False) -> Float[Array, "b t c"]:
        """Logits of every frame."""
        return self.classifier(self.encoder(frames, train=train))

    def features(self, frames: Float[Array, "b t h w"]) -> Float[Array, "b t d"]:
        """Features of every frame, in evaluation mode, differentiable in the frames."""
        return self.encoder(frames)
