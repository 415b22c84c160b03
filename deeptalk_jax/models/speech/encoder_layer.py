"""Transformer layer of both pretrained speech encoders, and layer drop.

The layer differs from `deeptalk_jax.models.transformer.TransformerLayer` in three respects that the checkpoints of
speech models need: norms before or after the branches, separate dropout rates, and layer norms in two passes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float

from deeptalk_jax.models.cpu_forms import gelu
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.models.speech.frontend import channel_norm
from deeptalk_jax.models.transformer import SelfAttention
from deeptalk_jax.types import Array


class EncoderLayer(nn.Module):
    """Self-attention and a GELU feed-forward network, each with a residual sum.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the feed-forward network.
        norm_first: whether the input of a branch is normalised ("stable layer norm") instead of the sum after it.
        norm_eps: added to variances.
        dropout_rate: dropout probability of the branch outputs.
        attention_dropout_rate: dropout probability of the attention weights.
        activation_dropout_rate: dropout probability inside the feed-forward network.
        dtype: compute type; softmax and the statistics of layer norms are float32.
    """

    num_heads: int = 12
    mlp_dim: int = 3072
    norm_first: bool = False
    norm_eps: float = 1e-5
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    activation_dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b s d"],
        *,
        bias: Float[Array, "h s s"] | None = None,
        mask: Bool[Array, "b s"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b s d"]:
        """Applies the layer.

        Args:
            x: `[b, s, d]` features.
            bias: `[h, s, s]` added to the attention scores.
            mask: `[b, s]`, true for positions that may be attended to.
            train: whether dropout is applied (stream `dropout`).
        """

        def drop(y, rate=self.dropout_rate):
            return Dropout(rate)(y, train=train)

        def attend(y):
            attention = SelfAttention(
                self.num_heads, self.attention_dropout_rate, self.dtype, name="attention"
            )
            return drop(attention(y, bias=bias, mask=mask, train=train))

        def feed_forward(y):
            y = gelu(nn.Dense(self.mlp_dim, dtype=self.dtype, name="mlp_in")(y))  # [b, s, mlp_dim]
            y = drop(y, self.activation_dropout_rate)
            return drop(nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(y))

        attention_norm = channel_norm(self.norm_eps, self.dtype, name="attention_norm")
        mlp_norm = channel_norm(self.norm_eps, self.dtype, name="mlp_norm")
        if self.norm_first:
            x = x + attend(attention_norm(x))
            return x + feed_forward(mlp_norm(x))
        x = attention_norm(x + attend(x))
        return mlp_norm(x + feed_forward(x))


def keep_or_skip(
    key: KeyArray, rate: float, before: Float[Array, "b s d"], after: Float[Array, "b s d"]
) -> Float[Array, "b s d"]:
    """Applies layer drop (Fan et al., ICLR 2020): the whole batch skips the layer with probability `rate`.

    Args:
        key: random key of this layer and step.
        rate: probability of skipping.
        before: input of the layer.
        after: output of the layer.

    Returns:
        `before` or `after`. The kept output is not rescaled, as in the published models.
    """
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate), after, before)
