"""Codes from the latents of a batch: drawn evenly, or by k-means++ (Arthur and Vassilvitskii, SODA 2007)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.types import Array


def random_rows(rows: Float[Array, "n d"], num_codes: int, key: KeyArray) -> Float[Array, "k d"]:
    """Rows drawn evenly, with replacement."""
    return rows[jax.random.randint(key, (num_codes,), 0, rows.shape[0])]


def kmeans_plus_plus(rows: Float[Array, "n d"], num_codes: int, key: KeyArray) -> Float[Array, "k d"]:
    """Rows drawn one by one: the first evenly, every other with probability in proportion to D^2 (section 2.2).

    D is the distance of a row from the nearest code so far: a far group gets a code before a near one gets a
    second. Once every row coincides with a code, the choice is even again. No `[n, k, d]` is built.
    """

    def squared_distance(code):
        # By differences, not by products: a row must lie at exactly 0 from itself, or it might be drawn again.
        return jnp.sum(jnp.square(rows - jnp.broadcast_to(code[None], rows.shape)), axis=-1)

    def draw(nearest, key):
        weights = jnp.where(jnp.any(nearest > 0), nearest, 1.0)
        code = rows[jax.random.categorical(key, jnp.log(weights))]
        return jnp.minimum(nearest, squared_distance(code)), code

    keys = jax.random.split(key, num_codes)
    first = rows[jax.random.randint(keys[0], (), 0, rows.shape[0])]
    _, others = jax.lax.scan(draw, squared_distance(first), keys[1:])
    return jnp.concatenate([first[None], others])
