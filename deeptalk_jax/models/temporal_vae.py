"""Temporal variational autoencoder (Kingma and Welling, ICLR 2014) of facial motion, a baseline of TH-VQVAE.

There is one Gaussian latent per 8 frames, as in FLINT, the motion prior of EMOTE (Danecek et al., SIGGRAPH Asia 2023).
"""

from fractions import Fraction
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.models.temporal_conv import TemporalBlock, check_windows, motion_output
from deeptalk_jax.types import Array, Gaussian

FRAMES_PER_LATENT = 8


class TemporalVAE(nn.Module):
    """Encoder, diagonal Gaussian and decoder.

    Attributes:
        dim: width of encoder and decoder.
        latent_dim: size of a latent.
        mlp_dim: feed-forward width of encoder and decoder.
        num_heads: attention heads.
        dropout_rate: dropout probability of the transformer layers.
        dtype: compute type of the layers; Gaussians and the output motion are float32.
    """

    dim: int
    latent_dim: int
    mlp_dim: int
    num_heads: int = 8
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Creates encoder, decoder, output layer and the two linear maps of the bottleneck."""

        def block(rate):
            return TemporalBlock(self.dim, self.mlp_dim, rate, self.num_heads, self.dropout_rate, self.dtype)

        self.encoder = block(Fraction(1, FRAMES_PER_LATENT))
        self.mean = nn.Dense(self.latent_dim, dtype=jnp.float32)
        self.log_variance = nn.Dense(self.latent_dim, dtype=jnp.float32)
        self.decoder = block(Fraction(FRAMES_PER_LATENT))
        self.output = motion_output()

    @property
    def codebook_sizes(self) -> dict[str, int]:
        """An empty dict, because this prior has no codes."""
        return {}

    def __call__(self, motion: Float[Array, "b t 53"], *, train: bool = False) -> PriorOutput:
        """Encodes and decodes windows without padding.

        If `train`, latents are sampled (stream `sample`); otherwise they are the means.

        Raises:
            ValueError: the number of frames is not a multiple of 8, or a frame does not have 53 numbers.
        """
        check_windows(motion, FRAMES_PER_LATENT)
        encoded = self.encoder(motion, train=train)  # [b, t/8, dim]
        gaussian = Gaussian(self.mean(encoded), self.log_variance(encoded))  # [b, t/8, latent_dim]
        latents = gaussian.mean
        if train:
            draw = partial(jax.random.normal, self.make_rng("sample"), dtype=jnp.float32)
            noise = draw_rows(draw, latents.shape)
            latents = latents + jnp.exp(0.5 * gaussian.log_variance) * noise
        return PriorOutput(self.output(self.decoder(latents, train=train)), {}, gaussian)
