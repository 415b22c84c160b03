"""Plain VQ-VAE (van den Oord et al., NeurIPS 2017): the motion prior without a hierarchy, a baseline of TH-VQVAE.

Two rates stand for two fair comparisons with the hierarchy's 1/2 + 1/4 codes per frame: 3 codes per 4 frames are as
many codes per second; 2 per 4 frames have the rate of its bottom level, for a codebook as large as both of its own.
"""

from fractions import Fraction

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.models.quantizer import Quantizer
from deeptalk_jax.models.temporal_block import TemporalBlock, check_windows, motion_output
from deeptalk_jax.types import Array


class OneLevelPrior(nn.Module):
    """Encoder, one codebook (level `codes`), decoder.

    Attributes:
        quantizer: the codebook; its `code_dim` is the width of the encoder.
        decoder_dim: width of the decoder.
        mlp_dim: feed-forward width of both.
        codes_per_4_frames: 2 by the squasher and expander, 3 by linear resampling.
        num_heads: attention heads.
        dropout_rate: of the transformer layers.
        dtype: compute type of the layers.
    """

    quantizer: Quantizer
    decoder_dim: int
    mlp_dim: int
    codes_per_4_frames: int
    num_heads: int = 8
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Creates both halves."""
        if self.codes_per_4_frames not in (2, 3):
            raise ValueError(f"codes_per_4_frames={self.codes_per_4_frames} is neither 2 nor 3")
        rate = Fraction(self.codes_per_4_frames, 4)

        def block(dim, rate):
            return TemporalBlock(dim, self.mlp_dim, rate, self.num_heads, self.dropout_rate, self.dtype)

        self.encoder = block(self.quantizer.code_dim, rate)
        self.decoder = block(self.decoder_dim, 1 / rate)
        self.output = motion_output()

    @property
    def codebook_sizes(self) -> dict[str, int]:
        """Number of codes of every level."""
        return {"codes": self.quantizer.codebook_size}

    def __call__(self, motion: Float[Array, "b t 53"], *, train: bool = False) -> PriorOutput:
        """Encodes and decodes full windows of a multiple of 4 frames."""
        check_windows(motion, 4)
        quantized = self.quantizer(self.encoder(motion, train=train), train=train)
        decoded = self.decoder(quantized.codes, train=train)
        return PriorOutput(self.output(decoded), {"codes": quantized})
