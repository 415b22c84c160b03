"""Post-norm transformer encoder (Vaswani et al., NeurIPS 2017), the block of every tower and predictor.

Matches `torch.nn.TransformerEncoderLayer` with `norm_first=False`, with two additions: an additive attention bias and
a mask of valid positions. `flax.linen.MultiHeadDotProductAttention` takes no additive bias, and its dropout differs
between devices under pmap (see `dropout.py`).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.cpu_forms import attention, gelu
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": gelu,
}
# Score of padded keys. Finite, so that a row without any valid key does not become NaN.
_MASKED_SCORE = -1e9


def _attention_weights(
    query: Float[Array, "b q h d"],
    key: Float[Array, "b k h d"],
    bias: Float[Array, "h q k"] | None,
    mask: Bool[Array, "b k"] | None,
) -> Float[Array, "b h q k"]:
    """Returns the softmax of scaled dot products plus `bias`; keys get no weight where `mask` is false."""
    # Scores and softmax are float32, because bfloat16 scores lose the small differences between distant positions.
    # `flax.linen.dot_product_attention_weights` would compute the scores in bfloat16.
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    scores = scores * (query.shape[-1] ** -0.5)
    if bias is not None:
        scores = scores + bias[None]
    if mask is not None:
        scores = jnp.where(mask[:, None, None, :], scores, _MASKED_SCORE)
    return jax.nn.softmax(scores, axis=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention with an additive bias.

    Attributes:
        num_heads: number of heads; must divide the feature size.
        dropout_rate: dropout probability of the attention weights.
        dtype: compute type of the projections; softmax is float32.
    """

    num_heads: int
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        bias: Float[Array, "h t t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t d"]:
        """Applies attention; `bias` is added to the scores, `mask` is true for valid keys.

        Raises:
            ConfigError: `num_heads` does not divide the feature size.
        """
        dim = x.shape[-1]
        if dim % self.num_heads:
            raise ConfigError(f"num_heads={self.num_heads} does not divide the feature size {dim}")

        def project(name):
            return nn.DenseGeneral((self.num_heads, dim // self.num_heads), dtype=self.dtype, name=name)(x)

        # [b, t, d] -> [b, t, h, d/h]
        query, key, value = project("query"), project("key"), project("value")
        if train:
            # `jax.nn.dot_product_attention` has no dropout of attention weights.
            weights = _attention_weights(query, key, bias, mask).astype(self.dtype)  # [b, h, t, t]
            weights = Dropout(self.dropout_rate)(weights, train=train)
            mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        else:
            mixed = attention(query, key, value, bias, mask)
        # [b, t, h, d/h] -> [b, t, d]
        return nn.DenseGeneral(dim, axis=(-2, -1), dtype=self.dtype, name="out")(mixed)


class TransformerLayer(nn.Module):
    """Self-attention and a feed-forward network, each followed by a residual sum and layer norm.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the feed-forward network.
        activation: a key of `ACTIVATIONS`.
        dropout_rate: dropout probability of attention weights, hidden layer and both residual branches.
        dtype: compute type; softmax and the statistics of layer norms are float32.
    """

    num_heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        bias: Float[Array, "h t t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t d"]:
        """Applies the layer; arguments as in `SelfAttention`.

        Raises:
            ConfigError: `activation` is not a key of `ACTIVATIONS`, or `num_heads` does not divide the feature size.
        """
        if self.activation not in ACTIVATIONS:
            raise ConfigError(f"activation={self.activation!r} is not one of {sorted(ACTIVATIONS)}")

        def drop(y):
            return Dropout(self.dropout_rate)(y, train=train)

        def norm(name):
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        def dense(features, name):
            return nn.Dense(features, dtype=self.dtype, name=name)

        attended = SelfAttention(self.num_heads, self.dropout_rate, self.dtype, name="attention")(
            x, bias=bias, mask=mask, train=train
        )
        x = norm("attention_norm")(x + drop(attended))  # [b, t, d]
        hidden = ACTIVATIONS[self.activation](dense(self.mlp_dim, "mlp_in")(x))  # [b, t, mlp_dim]
        return norm("mlp_norm")(x + drop(dense(x.shape[-1], "mlp_out")(drop(hidden))))


class TransformerEncoder(nn.Module):
    """A stack of `TransformerLayer` named `layer_0`, `layer_1`, ...

    Attributes:
        num_layers: number of layers.
        num_heads: as in `TransformerLayer`, like the fields that follow.
    """

    num_layers: int
    num_heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        bias: Float[Array, "h t t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t d"]:
        """Applies the layers in turn; arguments as in `SelfAttention`."""
        for index in range(self.num_layers):
            layer = TransformerLayer(
                self.num_heads,
                self.mlp_dim,
                self.activation,
                self.dropout_rate,
                self.dtype,
                name=f"layer_{index}",
            )
            x = layer(x, bias=bias, mask=mask, train=train)
        return x
