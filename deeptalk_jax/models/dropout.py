"""Dropout that draws a byte for each entry (Srivastava et al., JMLR 2014).

`flax.linen.Dropout` draws 32 bits for each, and Threefry is dear on a CPU: a fifth of a training step of TH-VQVAE.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.types import Array

_LEVELS = 256
_BYTES_PER_WORD = 4


class Dropout(nn.Module):
    """Zeroes entries at random while training, and scales up the others so that the mean stays.

    Attributes:
        rate: probability of zero, from 0 to below 1; rounded to a multiple of 1/256.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"], *, train: bool) -> Float[Array, "*b d"]:
        """`x` itself where `train` is false.

        Raises:
            ValueError: a rate outside of [0, 1), or one that rounds to 1.
        """
        dropped = round(self.rate * _LEVELS)
        if not 0 <= dropped < _LEVELS:
            raise ValueError(f"dropout rate {self.rate} is not in [0, 1)")
        if not (train and dropped):
            return x
        words = -(-x.shape[-1] // _BYTES_PER_WORD)
        draw = partial(jax.random.bits, self.make_rng("dropout"), dtype=jnp.uint32)
        bits = draw_rows(draw, (*x.shape[:-1], words))
        chance = jax.lax.bitcast_convert_type(bits, jnp.uint8).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]
        return jnp.where(chance >= dropped, x / (1.0 - dropped / _LEVELS), jnp.zeros_like(x))
