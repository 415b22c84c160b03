"""Choosing codes from logits: straight-through while training, by temperature at inference."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float, Int

from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.types import Array


def straight_through_gumbel_softmax(
    logits: Float[Array, "... k"], tau: Float[Array, ""] | float, key: KeyArray
) -> Float[Array, "... k"]:
    """One-hot sample forward, gradient of `softmax((logits + noise) / tau)` backward (Jang et al., ICLR 2017).

    The forward value does not depend on `tau`: every call samples at temperature 1.
    """
    noise = draw_rows(partial(jax.random.gumbel, key, dtype=jnp.float32), logits.shape)
    soft = jax.nn.softmax((logits.astype(jnp.float32) + noise) / tau, axis=-1)
    hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), logits.shape[-1], dtype=soft.dtype)
    return hard + soft - jax.lax.stop_gradient(soft)


def nucleus(probabilities: Float[Array, "... k"], top_p: Float[Array, ""] | float) -> Bool[Array, "... k"]:
    """The most likely codes whose probabilities first reach `top_p` together (Holtzman et al., ICLR 2020).

    Of equally likely codes the one of lower index comes first. The most likely code is in it even at 0; at 1 every
    code is.
    """

    def cut(probabilities):
        order = jnp.argsort(-probabilities, axis=-1)
        ranked = jnp.take_along_axis(probabilities, order, axis=-1)
        before = jnp.cumsum(ranked, axis=-1) - ranked
        kept = before < jnp.maximum(top_p, 1e-30)
        return jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)

    # All codes cost no sorting, and rounding cannot bring their sum to 1 before the last.
    return jax.lax.cond(top_p >= 1.0, lambda x: jnp.ones_like(x, bool), cut, probabilities)


def choose_codes(
    logits: Float[Array, "b t k"],
    temperature: Float[Array, ""] | float,
    keys: KeyArray,
    first_positions: Int[Array, " b"],
    *,
    top_p: Float[Array, ""] | float = 1.0,
) -> Int[Array, "b t"]:
    """Indices drawn from the nucleus of `softmax(logits / temperature)`; the most likely ones at temperature 0.

    The noise of a position depends on the clip's key and on the position in the whole clip only, so that
    overlapping windows, other batch sizes and other devices choose alike.

    Args:
        logits: of every position and code.
        temperature: 0 or above.
        keys: `[b]` one typed random key for each clip.
        first_positions: position in its clip of each window's first logit.
        top_p: probability that the codes to draw from must reach together, 0 to 1; see `nucleus`.
    """

    def noise_of(key, first):
        positions = first + jnp.arange(logits.shape[1])
        keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
        return jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:], jnp.float32))(keys)

    noise = jax.vmap(noise_of)(keys, first_positions)
    logits = logits.astype(jnp.float32)
    above = logits - jnp.max(logits, axis=-1, keepdims=True)  # 0 / 1e-30 at temperature 0, and no overflow
    kept = nucleus(jax.nn.softmax(above / jnp.maximum(temperature, 1e-30), axis=-1), top_p)
    # argmax(l / T + g) = argmax(l + T g): the same choice, defined at T = 0 too.
    return jnp.argmax(jnp.where(kept, logits + temperature * noise, -jnp.inf), axis=-1).astype(jnp.int32)
