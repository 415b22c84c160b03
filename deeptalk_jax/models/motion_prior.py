"""TH-VQVAE: temporally hierarchical VQ-VAE, the motion prior (DEEPTalk, section 3.2; SPEC section 3).

A slow codebook (top, one code per 4 frames) and a fast one (bottom, one per 2 frames) describe facial motion; the
bottom codes are chosen knowing the decoded top codes.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from deeptalk_jax.models.attention_bias import symmetric_alibi
from deeptalk_jax.models.masks import zero_padding
from deeptalk_jax.models.quantizer import EMAQuantizer, Quantized
from deeptalk_jax.models.temporal_conv import KERNEL_SIZE, DoublingConv, Expander, Squasher
from deeptalk_jax.models.transformer import TransformerEncoder
from deeptalk_jax.types import MOTION_DIM, Array

FRAMES_PER_TOP_CODE = 4
FRAMES_PER_BOTTOM_CODE = 2
_SMALL_INITIALISER = nn.initializers.variance_scaling(1e-3, "fan_in", "truncated_normal")


class PriorOutput(NamedTuple):
    """Encoding and reconstruction of a batch of motion windows.

    Attributes:
        motion: `[b, t, 53]` reconstruction.
        top: quantised top level, `[b, t/4, d]`.
        bottom: quantised bottom level, `[b, t/2, d]`.
    """

    motion: Array
    top: Quantized
    bottom: Quantized


class TemporalBlock(nn.Module):
    """Change of frame rate, linear map, one transformer layer with symmetric ALiBi.

    Attributes:
        dim: channels after the change of rate.
        mlp_dim: feed-forward width.
        num_heads: attention heads.
        expand: double the frame rate instead of halving it.
        dropout_rate: of the transformer layer.
        axis_name: pmap axis of the batch statistics.
    """

    dim: int
    mlp_dim: int
    num_heads: int = 8
    expand: bool = False
    dropout_rate: float = 0.1
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t"] | None = None, train: bool = False
    ) -> Float[Array, "b u e"]:
        """Half or twice as many positions; `mask` (valid input positions) serves the expanding form only."""
        if self.expand:
            x = Expander(self.dim, self.axis_name, name="expander")(x, mask=mask, train=train)
            mask = None if mask is None else jnp.repeat(mask, 2, axis=1)
        else:
            x = Squasher(self.dim, self.axis_name, name="squasher")(x, train=train)
        x = nn.Dense(self.dim, name="linear")(x)
        bias = symmetric_alibi(self.num_heads, x.shape[1])
        return TransformerEncoder(
            1, self.num_heads, self.mlp_dim, "gelu", self.dropout_rate, name="transformer"
        )(x, bias=bias, mask=mask, train=train)


class MotionPrior(nn.Module):
    """TH-VQVAE.

    Attributes:
        dim: width of both encoders and of the top decoder; size of a top code.
        mlp_dim: feed-forward width of those.
        decoder_mlp_dim: feed-forward width of the bottom decoder, whose width is 3 * dim.
        num_heads: attention heads.
        codebook_size_top: slow codes.
        codebook_size_bottom: fast codes, of size 2 * dim.
        dropout_rate: of the transformer layers.
        ema_decay: see `EMAQuantizer`, as the next four.
        commitment_weight: weight of the commitment losses.
        ema_smoothing: scale of the count smoothing.
        codebook_initialisation: start of both codebooks.
        revive_after: updates after which an unused code moves; 0 never.
        axis_name: pmap axis of all statistics.
    """

    dim: int = 128
    mlp_dim: int = 256
    decoder_mlp_dim: int = 512
    num_heads: int = 8
    codebook_size_top: int = 256
    codebook_size_bottom: int = 256
    dropout_rate: float = 0.1
    ema_decay: float = 0.95
    commitment_weight: float = 0.25
    ema_smoothing: str = "standard"
    codebook_initialisation: str = "uniform"
    revive_after: int = 0
    axis_name: str | None = None

    def setup(self):
        """Names follow SPEC section 3."""

        def block(dim, mlp_dim, expand=False):
            return TemporalBlock(dim, mlp_dim, self.num_heads, expand, self.dropout_rate, self.axis_name)

        def quantizer(size, dim):
            return EMAQuantizer(
                size,
                dim,
                decay=self.ema_decay,
                commitment_weight=self.commitment_weight,
                ema_smoothing=self.ema_smoothing,
                initialisation=self.codebook_initialisation,
                revive_after=self.revive_after,
                axis_name=self.axis_name,
            )

        self.encoder_bottom = block(self.dim, self.mlp_dim)
        self.encoder_top = block(self.dim, self.mlp_dim)
        self.quantizer_top = quantizer(self.codebook_size_top, self.dim)
        self.decoder_top = block(self.dim, self.mlp_dim, expand=True)
        self.quantizer_bottom = quantizer(self.codebook_size_bottom, 2 * self.dim)
        self.upsample_top = DoublingConv(self.dim, kernel_size=4)
        self.decoder_bottom = block(3 * self.dim, self.decoder_mlp_dim, expand=True)
        # Starts near the neutral face: at unit scale the jaw begins turned by a radian, beyond where the vertex
        # error leads back.
        self.output = nn.Conv(MOTION_DIM, (KERNEL_SIZE,), padding=((2, 2),), kernel_init=_SMALL_INITIALISER)

    def __call__(self, motion: Float[Array, "b t 53"], *, train: bool = False) -> PriorOutput:
        """Encodes and decodes full windows."""
        top, bottom = self.encode(motion, train=train)
        return PriorOutput(self.decode(top.codes, bottom.codes, train=train), top, bottom)

    def encode(self, motion: Float[Array, "b t 53"], *, train: bool = False) -> tuple[Quantized, Quantized]:
        """Top and bottom codes of full windows.

        Raises:
            ValueError: the number of frames is no multiple of 4, or a frame has not 53 numbers.
        """
        if motion.shape[1] % FRAMES_PER_TOP_CODE or motion.shape[-1] != MOTION_DIM:
            raise ValueError(
                f"motion must be [b, t, {MOTION_DIM}] with t a multiple of 4, got {motion.shape}"
            )
        latents_bottom = self.encoder_bottom(motion, train=train)
        top = self.quantizer_top(self.encoder_top(latents_bottom, train=train), train=train)
        decoded_top = self.decode_top(top.codes, train=train)
        joint = jnp.concatenate([decoded_top, latents_bottom], axis=-1)
        return top, self.quantizer_bottom(joint, train=train)

    def decode_top(
        self, codes_top: Float[Array, "b k d"], *, mask: Bool[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b t/2 d"]:
        """What the top codes say at the bottom rate; conditions the choice of bottom codes."""
        return self.decoder_top(codes_top, mask=mask, train=train)

    def decode(
        self,
        codes_top: Float[Array, "b k d"],
        codes_bottom: Float[Array, "b 2k e"],
        *,
        mask: Bool[Array, "b k"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t 53"]:
        """Motion of given codes; `mask` is true for valid top codes of a padded batch."""
        mask_bottom = None if mask is None else jnp.repeat(mask, 2, axis=1)
        mask_frames = None if mask is None else jnp.repeat(mask, FRAMES_PER_TOP_CODE, axis=1)
        upsampled = self.upsample_top(zero_padding(codes_top, mask))
        joint = jnp.concatenate([upsampled, codes_bottom], axis=-1)
        decoded = self.decoder_bottom(joint, mask=mask_bottom, train=train)
        return self.output(zero_padding(decoded, mask_frames))

    def lookup_top(self, indices: Int[Array, "b k"]) -> Float[Array, "b k d"]:
        """Top codes of given indices."""
        return self.quantizer_top.lookup(indices)

    def lookup_bottom(self, indices: Int[Array, "b k"]) -> Float[Array, "b k d"]:
        """Bottom codes of given indices."""
        return self.quantizer_bottom.lookup(indices)

    def mix_top(self, weights: Float[Array, "b k n"]) -> Float[Array, "b k d"]:
        """Top codes of a one-hot or soft choice, differentiable in the choice."""
        return self.quantizer_top.mix(weights)

    def mix_bottom(self, weights: Float[Array, "b k n"]) -> Float[Array, "b k d"]:
        """Bottom codes of a one-hot or soft choice, differentiable in the choice."""
        return self.quantizer_bottom.mix(weights)
