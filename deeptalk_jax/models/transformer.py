"""Post-norm transformer encoder (Vaswani et al., NeurIPS 2017), the block of every tower and predictor.

Matches `torch.nn.TransformerEncoderLayer` with `norm_first=False`, plus an additive attention bias and a mask of
valid positions.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.types import Array

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": nn.relu,
    "gelu": lambda x: nn.gelu(x, approximate=False),  # the erf form, as in torch
}
# Added to the scores of padded keys: finite, so that a row without any valid key stays free of NaN.
MASKED_SCORE = -1e9


class SelfAttention(nn.Module):
    """Multi-head self-attention with an additive bias.

    Attributes:
        num_heads: heads; must divide the feature size.
        dropout_rate: dropout of the attention weights.
        dtype: compute type of the projections.
        param_dtype: type of the stored weights.
    """

    num_heads: int
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        bias: Float[Array, "h t t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t d"]:
        """Mixes positions; `mask` is true where a key is valid."""
        dim = x.shape[-1]
        if dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide the feature size {dim}")
        head_dim = dim // self.num_heads

        def project(name):
            return nn.DenseGeneral(
                (self.num_heads, head_dim), dtype=self.dtype, param_dtype=self.param_dtype, name=name
            )(x)

        query, key, value = project("query"), project("key"), project("value")
        # Softmax in float32: bf16 scores lose the small differences between far positions.
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
        scores = scores * (head_dim**-0.5)
        if bias is not None:
            scores = scores + bias[None]
        if mask is not None:
            scores = jnp.where(mask[:, None, None, :], scores, MASKED_SCORE)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = nn.Dropout(self.dropout_rate)(weights, deterministic=not train)
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, value)
        return nn.DenseGeneral(
            dim, axis=(-2, -1), dtype=self.dtype, param_dtype=self.param_dtype, name="out"
        )(mixed)


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward, each followed by residual sum and layer norm.

    Attributes:
        num_heads: attention heads.
        mlp_dim: width of the feed-forward layer.
        activation: a key of `ACTIVATIONS`.
        dropout_rate: dropout of attention weights, hidden layer and both residual branches.
        dtype: compute type.
        param_dtype: type of the stored weights.
    """

    num_heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        bias: Float[Array, "h t t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t d"]:
        """One layer; shapes as in `SelfAttention`."""
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation={self.activation!r} is not one of {sorted(ACTIVATIONS)}")
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def drop(y):
            return nn.Dropout(self.dropout_rate)(y, deterministic=not train)

        def norm(name):
            return nn.LayerNorm(epsilon=1e-5, name=name, **types)

        attended = SelfAttention(self.num_heads, self.dropout_rate, name="attention", **types)(
            x, bias=bias, mask=mask, train=train
        )
        x = norm("attention_norm")(x + drop(attended))
        hidden = ACTIVATIONS[self.activation](nn.Dense(self.mlp_dim, name="mlp_in", **types)(x))
        return norm("mlp_norm")(x + drop(nn.Dense(x.shape[-1], name="mlp_out", **types)(drop(hidden))))


class TransformerEncoder(nn.Module):
    """A stack of `TransformerLayer`, named `layer_0`, `layer_1`, ...

    Attributes:
        num_layers: depth; the other fields are those of `TransformerLayer`.
    """

    num_layers: int
    num_heads: int
    mlp_dim: int
    activation: str = "gelu"
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b t d"],
        *,
        bias: Float[Array, "h t t"] | None = None,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
    ) -> Float[Array, "b t d"]:
        """Applies the layers in turn; shapes as in `SelfAttention`."""
        for index in range(self.num_layers):
            x = TransformerLayer(
                self.num_heads,
                self.mlp_dim,
                self.activation,
                self.dropout_rate,
                self.dtype,
                self.param_dtype,
                name=f"layer_{index}",
            )(x, bias=bias, mask=mask, train=train)
        return x
