"""Pooling over time: GPO, the generalised pooling operator (Chen et al., CVPR 2021), mean and maximum.

GPO sorts every channel in descending order over time and averages it with weights that depend on the rank only. A
small bidirectional GRU reads the position code of each rank and computes its weight. Both DEE towers use it
(docs/method.md, section 2).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.positions import sinusoidal_positions
from deeptalk_jax.types import Array

POOLINGS = ("gpo", "mean", "max")


class GRU(nn.Module):
    """One direction of a gated recurrent unit (Cho et al., EMNLP 2014) with torch's two bias vectors.

    `flax.linen.GRUCell` has no hidden bias for the reset and update gates, which the published checkpoints need.

    Attributes:
        hidden_dim: number of units.
        reverse: whether positions are read from last to first.
    """

    hidden_dim: int
    reverse: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "s d"], mask: Bool[Array, "b s"]) -> Float[Array, "b s h"]:
        """Returns the state after every position of `x`, a sequence that all clips share.

        The state is zero at padded positions, so the reversed direction starts at the last valid position of each
        clip.
        """
        width = 3 * self.hidden_dim
        kernel_init = nn.initializers.variance_scaling(1.0 / 3.0, "fan_out", "uniform")
        input_kernel = self.param("input_kernel", kernel_init, (x.shape[-1], width))
        hidden_kernel = self.param("hidden_kernel", kernel_init, (self.hidden_dim, width))
        input_bias = self.param("input_bias", nn.initializers.zeros, (width,))
        hidden_bias = self.param("hidden_bias", nn.initializers.zeros, (width,))
        projected = x @ input_kernel + input_bias[None]  # [s, 3h]

        def step(hidden, inputs):
            gates_x, valid = inputs  # [3h], [b]
            reset_x, update_x, new_x = jnp.split(gates_x[None], 3, axis=-1)
            reset_h, update_h, new_h = jnp.split(hidden @ hidden_kernel + hidden_bias[None], 3, axis=-1)
            reset = nn.sigmoid(reset_x + reset_h)
            update = nn.sigmoid(update_x + update_h)
            candidate = jnp.tanh(new_x + reset * new_h)
            hidden = jnp.where(valid[:, None], (1.0 - update) * candidate + update * hidden, 0.0)
            return hidden, hidden

        start = jnp.zeros((mask.shape[0], self.hidden_dim), projected.dtype)
        _, states = jax.lax.scan(step, start, (projected, mask.T), reverse=self.reverse)  # [s, b, h]
        return jnp.swapaxes(states, 0, 1)


class GPO(nn.Module):
    """Generalised pooling over time.

    Attributes:
        position_dim: channels of the position code of a rank.
        hidden_dim: GRU units.
        temperature: temperature of the softmax over ranks.
    """

    position_dim: int = 32
    hidden_dim: int = 32
    temperature: float = 0.1

    def setup(self):
        """Creates both directions of the GRU and the linear map from states to scores."""
        self.forward = GRU(self.hidden_dim)
        self.backward = GRU(self.hidden_dim, reverse=True)
        self.score = nn.Dense(1, use_bias=False)

    def __call__(self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"]) -> Float[Array, "b d"]:
        """Pools the valid positions; padded positions get no weight."""
        weights = self.weights(mask)  # [b, s]
        # Padded values sort behind every valid value. They are replaced by zero afterwards, because their weight of
        # zero times -inf would be NaN.
        descending = -jnp.sort(jnp.where(mask[..., None], -x, jnp.inf), axis=1)  # [b, s, d]
        return jnp.einsum("bs,bsd->bd", weights, jnp.where(mask[..., None], descending, 0.0))

    def weights(self, mask: Bool[Array, "b s"]) -> Float[Array, "b s"]:
        """Returns the weight of every rank; valid positions must precede padded ones."""
        code = jnp.asarray(sinusoidal_positions(mask.shape[1], self.position_dim))  # [s, d]
        states = 0.5 * (self.forward(code, mask) + self.backward(code, mask))  # [b, s, h]
        score = self.score(states)[..., 0]  # [b, s]
        score = jnp.where(mask, score / self.temperature, -jnp.inf)
        return jax.nn.softmax(score, axis=1, where=mask)


class Pooling(nn.Module):
    """Pools a sequence to one vector.

    Attributes:
        kind: one of `POOLINGS`; "gpo" as published.
    """

    kind: str = "gpo"

    @nn.compact
    def __call__(self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"]) -> Float[Array, "b d"]:
        """Pools the valid positions.

        Raises:
            ConfigError: `kind` is not one of `POOLINGS`.
        """
        if self.kind == "gpo":
            return GPO(name="gpo")(x, mask)
        if self.kind == "mean":
            return jnp.mean(x, axis=1, where=mask[..., None])
        if self.kind == "max":
            return jnp.max(x, axis=1, where=mask[..., None], initial=-jnp.inf)
        raise ConfigError(f"pooling={self.kind!r} is not one of {POOLINGS}")
