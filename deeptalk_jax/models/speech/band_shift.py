"""Vocal tract length perturbation: a random shift of mel bands, so that one speaker sounds like several.

Jaitly and Hinton (ICML workshop on deep learning for audio, speech and language, 2013) scale the frequency axis of
every training clip by a random factor. Departure: the scaling is a shift here, because the mel scale is logarithmic
above about 700 Hz.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.types import Array


def shift_bands(x: Float[Array, "b t m"], shift: Float[Array, " b"]) -> Float[Array, "b t m"]:
    """Moves the value at band i + shift to band i, by linear interpolation between bands; edges are repeated."""
    num_bands = x.shape[-1]
    bands = jnp.arange(num_bands, dtype=x.dtype)
    places = jnp.clip(bands[None] + shift[:, None], 0.0, num_bands - 1.0)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(bands[None, :, None] - places[:, None, :]))  # [b, m, m]
    return jnp.einsum("btm,bmn->btn", x, weights)


def random_shift(key: KeyArray, x: Float[Array, "b t m"], max_shift: float) -> Float[Array, "b t m"]:
    """Shifts every clip by its own number of bands, drawn uniformly from +-`max_shift`."""
    draw = partial(jax.random.uniform, key, dtype=x.dtype, minval=-max_shift, maxval=max_shift)
    return shift_bands(x, draw_rows(draw, x.shape[:1]))
