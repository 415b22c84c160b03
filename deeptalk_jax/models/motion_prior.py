"""TH-VQVAE: temporally hierarchical VQ-VAE, the motion prior (DEEPTalk, section 3.2; docs/method.md, section 3).

Facial motion is encoded with a slow codebook (top, one code per 4 frames) and a fast one (bottom, one code per 2
frames). Bottom codes are conditioned on the decoded top codes.
"""

from fractions import Fraction

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import zero_padding
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.models.quantizer import Quantized, Quantizer, make_quantizer
from deeptalk_jax.models.temporal_conv import (
    DoublingConv,
    TemporalBlock,
    check_windows,
    motion_output,
    num_halvings,
)
from deeptalk_jax.types import Array

# Rates of the published prior, in motion frames (25 Hz) per code. The generator and inference support only these.
FRAMES_PER_TOP_CODE = 4
FRAMES_PER_BOTTOM_CODE = 2


class MotionPrior(nn.Module):
    """TH-VQVAE; the defaults are the published sizes.

    Attributes:
        dim: width of both encoders and of the top decoder, and size of a top code.
        mlp_dim: feed-forward width of both encoders and of the top decoder.
        decoder_mlp_dim: feed-forward width of the bottom decoder, which has width 3 * dim.
        num_heads: attention heads.
        codebook_size_top: number of top (slow) codes.
        codebook_size_bottom: number of bottom (fast) codes, of size 2 * dim.
        dropout_rate: dropout probability of the transformer layers.
        ema_decay: `decay` of `EMAQuantizer`.
        commitment_weight: weight of the commitment losses.
        ema_smoothing: `ema_smoothing` of `EMAQuantizer`.
        codebook_initialisation: `initialisation` of `EMAQuantizer`.
        start_after: `start_after` of `EMAQuantizer`, in updates.
        revive_after: `revive_after` of `EMAQuantizer`, in updates; 0 means never.
        codebook_update: "ema" or "gradient"; see `make_quantizer`.
        frames_per_top_code: a power of two times `frames_per_bottom_code`.
        frames_per_bottom_code: a power of two.
        top_condition_scale: factor of the decoded top codes where they are concatenated with the bottom encoder's
            latents before quantisation. At the published value of 1 both count equally in the distances, and bottom
            codes spend half of their precision on information that the top codes already contain.
        dtype: compute type of the layers; quantisation and the output motion are float32.
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
    start_after: int = 0
    revive_after: int = 0
    codebook_update: str = "ema"
    frames_per_top_code: int = FRAMES_PER_TOP_CODE
    frames_per_bottom_code: int = FRAMES_PER_BOTTOM_CODE
    top_condition_scale: float = 1.0
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Creates the parts under the names of docs/method.md, section 3."""
        ratio, remainder = divmod(self.frames_per_top_code, self.frames_per_bottom_code)
        if remainder:
            raise ConfigError(
                f"frames_per_top_code={self.frames_per_top_code}: expected a multiple of "
                f"frames_per_bottom_code={self.frames_per_bottom_code}"
            )
        top_rate, bottom_rate = Fraction(1, ratio), Fraction(1, self.frames_per_bottom_code)

        def block(dim, mlp_dim, rate):
            return TemporalBlock(dim, mlp_dim, rate, self.num_heads, self.dropout_rate, self.dtype)

        self.encoder_bottom = block(self.dim, self.mlp_dim, bottom_rate)
        self.encoder_top = block(self.dim, self.mlp_dim, top_rate)
        self.quantizer_top = self.new_quantizer(self.codebook_size_top, self.dim)
        self.decoder_top = block(self.dim, self.mlp_dim, 1 / top_rate)
        self.quantizer_bottom = self.new_quantizer(self.codebook_size_bottom, 2 * self.dim)
        self.upsample_top = DoublingConv(self.dim, 4, self.dtype)
        # Empty at the published rates, for which one doubling is enough.
        self.upsample_further = [
            DoublingConv(self.dim, 4, self.dtype) for _ in range(num_halvings(ratio) - 1)
        ]
        self.decoder_bottom = block(3 * self.dim, self.decoder_mlp_dim, 1 / bottom_rate)
        self.output = motion_output()

    @nn.nowrap
    def new_quantizer(self, codebook_size: int, code_dim: int) -> Quantizer:
        """Creates a codebook with the options of this prior; baselines of the prior take theirs from here too."""
        return make_quantizer(
            self.codebook_update,
            codebook_size,
            code_dim,
            decay=self.ema_decay,
            commitment_weight=self.commitment_weight,
            ema_smoothing=self.ema_smoothing,
            initialisation=self.codebook_initialisation,
            start_after=self.start_after,
            revive_after=self.revive_after,
        )

    @property
    def codebook_sizes(self) -> dict[str, int]:
        """Number of codes of every level, by level name."""
        return {"top": self.codebook_size_top, "bottom": self.codebook_size_bottom}

    def __call__(self, motion: Float[Array, "b t 53"], *, train: bool = False) -> PriorOutput:
        """Encodes and decodes windows without padding.

        Raises:
            ValueError: the number of frames is not a multiple of `frames_per_top_code`, or a frame does not have 53
                numbers.
        """
        top, bottom = self.encode(motion, train=train)
        motion = self.decode(top.codes, bottom.codes, train=train)
        return PriorOutput(motion, {"top": top, "bottom": bottom})

    def encode(self, motion: Float[Array, "b t 53"], *, train: bool = False) -> tuple[Quantized, Quantized]:
        """Returns the top and bottom codes of windows without padding.

        Raises:
            ValueError: as `__call__`.
        """
        check_windows(motion, self.frames_per_top_code)
        latents_bottom = self.encoder_bottom(motion, train=train)  # [b, t/2, d] at the published rates
        top = self.quantizer_top(self.encoder_top(latents_bottom, train=train), train=train)  # [b, t/4, d]
        decoded_top = self.decode_top(top.codes, train=train)  # [b, t/2, d]
        joint = jnp.concatenate([self.top_condition_scale * decoded_top, latents_bottom], axis=-1)
        return top, self.quantizer_bottom(joint, train=train)  # [b, t/2, 2d]

    def decode_top(
        self, codes_top: Float[Array, "b k d"], *, mask: Bool[Array, "b k"] | None = None, train: bool = False
    ) -> Float[Array, "b r*k d"]:
        """Decodes top codes to the rate of the bottom codes, as the condition for choosing bottom codes."""
        return self.decoder_top(codes_top, mask=mask, train=train)

    def decode(
        self,
        codes_top: Float[Array, "b k d"],
        codes_bottom: Float[Array, "b r*k e"],
        *,
        mask: Bool[Array, "b k"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t 53"]:
        """Decodes codes to motion; `mask` is true for the valid top codes of a padded batch."""
        # [b, k, d] -> [b, r*k, d]
        upsampled = codes_top
        for doubling in (self.upsample_top, *self.upsample_further):
            upsampled = doubling(zero_padding(upsampled, mask))
            mask = None if mask is None else jnp.repeat(mask, 2, axis=1)
        joint = jnp.concatenate([upsampled, codes_bottom.astype(upsampled.dtype)], axis=-1)  # [b, r*k, 3d]
        decoded = self.decoder_bottom(joint, mask=mask, train=train)  # [b, t, 3d]
        mask_frames = None if mask is None else jnp.repeat(mask, self.frames_per_bottom_code, axis=1)
        return self.output(zero_padding(decoded, mask_frames))

    def lookup_top(self, indices: Int[Array, "b k"]) -> Float[Array, "b k d"]:
        """Returns the top codes with the given indices."""
        return self.quantizer_top.lookup(indices)

    def lookup_bottom(self, indices: Int[Array, "b k"]) -> Float[Array, "b k d"]:
        """Returns the bottom codes with the given indices."""
        return self.quantizer_bottom.lookup(indices)

    def mix_top(self, weights: Float[Array, "b k n"]) -> Float[Array, "b k d"]:
        """Returns top codes averaged with one-hot or soft weights, differentiable with respect to the weights."""
        return self.quantizer_top.mix(weights)

    def mix_bottom(self, weights: Float[Array, "b k n"]) -> Float[Array, "b k d"]:
        """Returns bottom codes averaged with one-hot or soft weights, differentiable with respect to the weights."""
        return self.quantizer_bottom.mix(weights)
