"""What every motion prior is built of (SPEC section 3): change of frame rate, linear map, transformer layer."""

from fractions import Fraction

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float

from deeptalk_jax.models.attention_bias import symmetric_alibi
from deeptalk_jax.models.flat_dot import flat_dot_general
from deeptalk_jax.models.temporal_conv import KERNEL_SIZE, Expander, Resampler, Squasher
from deeptalk_jax.models.transformer import TransformerEncoder
from deeptalk_jax.types import MOTION_DIM, Array

_SMALL_INITIALISER = nn.initializers.variance_scaling(1e-3, "fan_in", "truncated_normal")


class TemporalBlock(nn.Module):
    """Change of frame rate, linear map, one transformer layer with symmetric ALiBi.

    Attributes:
        dim: channels after the change of rate.
        mlp_dim: feed-forward width.
        rate: output frames per frame: 1/2, 1/4, ... (squasher), 2, 4, ... (expander), or another (resampler).
        num_heads: attention heads.
        dropout_rate: of the transformer layer.
        dtype: compute type.
    """

    dim: int
    mlp_dim: int
    rate: Fraction
    num_heads: int = 8
    dropout_rate: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], *, mask: Bool[Array, "b t"] | None = None, train: bool = False
    ) -> Float[Array, "b u e"]:
        """`rate` times as many positions; `mask` (valid input positions) serves the expander only."""
        up, down = self.rate.numerator, self.rate.denominator
        if down == 1:
            x = Expander(self.dim, up, self.dtype, name="expander")(x, mask=mask, train=train)
            mask = None if mask is None else jnp.repeat(mask, up, axis=1)
        elif up == 1:
            x = Squasher(self.dim, down, self.dtype, name="squasher")(x, train=train)
        else:
            x = Resampler(self.dim, self.rate, self.dtype, name="resampler")(x, train=train)
        x = nn.Dense(self.dim, dtype=self.dtype, dot_general=flat_dot_general, name="linear")(x)
        bias = symmetric_alibi(self.num_heads, x.shape[1])
        return TransformerEncoder(
            1, self.num_heads, self.mlp_dim, "gelu", self.dropout_rate, self.dtype, name="transformer"
        )(x, bias=bias, mask=mask, train=train)


def motion_output() -> nn.Conv:
    """Last layer of every prior, from decoded features to motion.

    Starts near the neutral face: at unit scale the jaw begins turned by a radian, beyond where the vertex error
    leads back. Computed in float32 whatever the other layers do: bfloat16 would round a jaw angle of 0.3 rad by up to
    0.001 rad, which moves the chin by a tenth of a millimetre.
    """
    return nn.Conv(
        MOTION_DIM, (KERNEL_SIZE,), padding=((2, 2),), kernel_init=_SMALL_INITIALISER, dtype=jnp.float32
    )


def check_windows(motion: Float[Array, "b t 53"], multiple: int) -> None:
    """Holds motion against what a prior encodes.

    Raises:
        ValueError: the number of frames is no multiple of `multiple`, or a frame has not 53 numbers.
    """
    if motion.shape[1] % multiple or motion.shape[-1] != MOTION_DIM:
        raise ValueError(
            f"motion must be [b, t, {MOTION_DIM}] with t a multiple of {multiple}, got {motion.shape}"
        )
