"""Random shift of mel bands: one speaker sounds like several (vocal tract length perturbation).

Jaitly and Hinton (ICML workshop on deep learning for audio, speech and language, 2013) warp the frequency axis of
every training clip by a random factor. On a mel scale, which is logarithmic above about 700 Hz, a factor is a shift.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.types import Array


def shift_bands(x: Float[Array, "b t m"], shift: Float[Array, " b"]) -> Float[Array, "b t m"]:
    """Band i of a clip takes the value at band i + shift, between two bands that of both; edges are repeated."""
    num_bands = x.shape[-1]
    bands = jnp.arange(num_bands, dtype=x.dtype)
    places = jnp.clip(bands[None] + shift[:, None], 0.0, num_bands - 1.0)
    weights = jnp.maximum(0.0, 1.0 - jnp.abs(bands[None, :, None] - places[:, None, :]))  # [b, m, m]
    return jnp.einsum("btm,bmn->btn", x, weights)


def random_shift(key: KeyArray, x: Float[Array, "b t m"], max_shift: float) -> Float[Array, "b t m"]:
    """Every clip by a shift of its own, uniform in +-`max_shift` bands."""
    draw = partial(jax.random.uniform, key, dtype=x.dtype, minval=-max_shift, maxval=max_shift)
    return shift_bands(x, draw_rows(draw, x.shape[:1]))
