"""Plain VQ-VAE (van den Oord et al., NeurIPS 2017): the motion prior without a hierarchy, a baseline of TH-VQVAE.

TH-VQVAE spends 1/2 + 1/4 codes per frame, so there are two fair comparisons: 3 codes per 4 frames are the same number
of codes per second; 2 codes per 4 frames are the rate of its bottom level, with a codebook as large as both of its
codebooks together.
"""

from fractions import Fraction

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.models.quantizer import Quantizer
from deeptalk_jax.models.temporal_conv import TemporalBlock, check_windows, motion_output
from deeptalk_jax.types import Array


class OneLevelPrior(nn.Module):
    """Encoder, one codebook (level name `codes`) and decoder.

    Attributes:
        quantizer: the codebook; its `code_dim` is the width of the encoder.
        decoder_dim: width of the decoder.
        mlp_dim: feed-forward width of encoder and decoder.
        codes_per_4_frames: 2 (squasher and expander) or 3 (linear resampling).
        num_heads: attention heads.
        dropout_rate: dropout probability of the transformer layers.
        dtype: compute type of the layers; quantisation and the output motion are float32.
    """

    quantizer: Quantizer
    decoder_dim: int
    mlp_dim: int
    codes_per_4_frames: int
    num_heads: int = 8
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Creates encoder, decoder and output layer."""
        if self.codes_per_4_frames not in (2, 3):
            raise ConfigError(f"codes_per_4_frames={self.codes_per_4_frames} is not one of (2, 3)")
        rate = Fraction(self.codes_per_4_frames, 4)

        def block(dim, rate):
            return TemporalBlock(dim, self.mlp_dim, rate, self.num_heads, self.dropout_rate, self.dtype)

        self.encoder = block(self.quantizer.code_dim, rate)
        self.decoder = block(self.decoder_dim, 1 / rate)
        self.output = motion_output()

    @property
    def codebook_sizes(self) -> dict[str, int]:
        """Number of codes of the only level, by level name."""
        return {"codes": self.quantizer.codebook_size}

    def __call__(self, motion: Float[Array, "b t 53"], *, train: bool = False) -> PriorOutput:
        """Encodes and decodes windows without padding.

        Raises:
            ValueError: the number of frames is not a multiple of 4, or a frame does not have 53 numbers.
        """
        check_windows(motion, 4)
        quantized = self.quantizer(self.encoder(motion, train=train), train=train)  # [b, t*c/4, d]
        decoded = self.decoder(quantized.codes, train=train)  # [b, t, decoder_dim]
        return PriorOutput(self.output(decoded), {"codes": quantized})
