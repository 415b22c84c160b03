"""Choice of codes from logits: straight-through Gumbel-softmax in training, temperature sampling at inference.

In the published code the temperature has no effect on which code is chosen; here it has (docs/method.md, section 4.3).
"""

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
    """Samples one-hot vectors with the gradient of `softmax((logits + noise) / tau)` (Jang et al., ICLR 2017).

    The sample does not depend on `tau`: every call samples at temperature 1.

    Args:
        logits: unnormalised log-probabilities of k codes.
        tau: temperature of the gradient, above 0.
        key: random key of the global batch.
    """
    noise = draw_rows(partial(jax.random.gumbel, key, dtype=jnp.float32), logits.shape)
    soft = jax.nn.softmax((logits.astype(jnp.float32) + noise) / tau, axis=-1)
    hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), logits.shape[-1], dtype=soft.dtype)
    return hard + soft - jax.lax.stop_gradient(soft)


def nucleus(probabilities: Float[Array, "... k"], top_p: Float[Array, ""] | float) -> Bool[Array, "... k"]:
    """Returns true for the smallest set of most likely codes that has probability `top_p` (Holtzman et al., ICLR 2020).

    Among equally likely codes, lower indices come first. The most likely code is always in the set, even at
    `top_p=0`; at `top_p=1` every code is.
    """

    def cut(probabilities):
        order = jnp.argsort(-probabilities, axis=-1)
        ranked = jnp.take_along_axis(probabilities, order, axis=-1)
        before = jnp.cumsum(ranked, axis=-1) - ranked
        kept = before < jnp.maximum(top_p, 1e-30)
        return jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)

    # At 1 nothing is sorted, and rounding cannot make the sum reach 1 before the last code.
    return jax.lax.cond(top_p >= 1.0, lambda x: jnp.ones_like(x, bool), cut, probabilities)


def choose_codes(
    logits: Float[Array, "b t k"],
    temperature: Float[Array, ""] | float,
    keys: KeyArray,
    first_positions: Int[Array, " b"],
    *,
    top_p: Float[Array, ""] | float = 1.0,
) -> Int[Array, "b t"]:
    """Draws code indices from the nucleus of `softmax(logits / temperature)`, the most likely ones at temperature 0.

    The noise of a position depends only on the key of the clip and on the position within the whole clip. Overlapping
    windows, other batch sizes and other devices therefore choose the same codes.

    Args:
        logits: logits of every position and code.
        temperature: sampling temperature, 0 or above.
        keys: `[b]` typed random keys, one per clip.
        first_positions: position within its clip of the first logit of every window.
        top_p: probability mass of the nucleus, from 0 to 1; see `nucleus`.
    """

    def noise_of(key, first):
        positions = first + jnp.arange(logits.shape[1])
        keys = jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)
        return jax.vmap(lambda key: jax.random.gumbel(key, logits.shape[-1:], jnp.float32))(keys)

    noise = jax.vmap(noise_of)(keys, first_positions)  # [b, t, k]
    logits = logits.astype(jnp.float32)
    above = logits - jnp.max(logits, axis=-1, keepdims=True)  # so that dividing by 1e-30 gives 0 or -inf
    kept = nucleus(jax.nn.softmax(above / jnp.maximum(temperature, 1e-30), axis=-1), top_p)
    # argmax(l / T + g) = argmax(l + T g), which is also defined at T = 0.
    return jnp.argmax(jnp.where(kept, logits + temperature * noise, -jnp.inf), axis=-1).astype(jnp.int32)
