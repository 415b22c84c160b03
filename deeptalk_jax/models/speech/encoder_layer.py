"""The transformer layer of both speech encoders, and dropping of whole layers.

It differs from `deeptalk_jax.models.transformer.TransformerLayer` in three ways that checkpoints of speech
models need: norms before or after the branches, separate dropout rates, and layer norms in two passes.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.models.activations import gelu
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.models.speech.frontend import channel_norm
from deeptalk_jax.models.transformer import SelfAttention
from deeptalk_jax.types import Array


class EncoderLayer(nn.Module):
    """Self-attention and a GELU feed-forward network, each with a residual.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the feed-forward network.
        norm_first: norm the input of a branch ("stable layer norm") instead of the sum after it.
        norm_eps: added to variances.
        dropout_rate: dropout of the branch outputs.
        attention_dropout_rate: dropout of the attention weights.
        activation_dropout_rate: dropout inside the feed-forward network.
        dtype: compute type.
        param_dtype: type of the stored weights.
    """

    num_heads: int = 12
    mlp_dim: int = 3072
    norm_first: bool = False
    norm_eps: float = 1e-5
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    activation_dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b s d"],
        *,
        bias: Float[Array, "h s s"] | None = None,
        mask: Bool[Array, "b s"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b s d"]:
        """One layer.

        Args:
            x: `[b, s, d]`.
            bias: `[h, s, s]` added to the attention scores.
            mask: `[b, s]`, true where a position may be attended to.
            train: switches dropout on (stream `dropout`).

        Returns:
            `[b, s, d]`.
        """
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def drop(y, rate=self.dropout_rate):
            return Dropout(rate)(y, train=train)

        def attend(y):
            attention = SelfAttention(self.num_heads, self.attention_dropout_rate, name="attention", **types)
            return drop(attention(y, bias=bias, mask=mask, train=train))

        def feed_forward(y):
            y = gelu(nn.Dense(self.mlp_dim, name="mlp_in", **types)(y))
            y = drop(y, self.activation_dropout_rate)
            return drop(nn.Dense(x.shape[-1], name="mlp_out", **types)(y))

        attention_norm = channel_norm(self.norm_eps, **types, name="attention_norm")
        mlp_norm = channel_norm(self.norm_eps, **types, name="mlp_norm")
        if self.norm_first:
            x = x + attend(attention_norm(x))
            return x + feed_forward(mlp_norm(x))
        x = attention_norm(x + attend(x))
        return mlp_norm(x + feed_forward(x))


def keep_or_skip(key: Array, rate: float, before: Array, after: Array) -> Array:
    """Layer drop (Fan et al., ICLR 2020): with probability `rate` the whole batch skips the layer.

    Args:
        key: random key of this layer and step.
        rate: probability to skip.
        before: input of the layer.
        after: output of the layer, same shape.

    Returns:
        One of the two; the kept output is not rescaled, as in the published models.
    """
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate), after, before)
