"""Batch normalisation over the global batch (Ioffe and Szegedy, ICML 2015).

`flax.linen.BatchNorm` is not used for two reasons: its running variance is the biased estimate, whereas torch and the
published training runs keep the unbiased one; and it needs the pmap axis as a field, whereas `global_sum` finds it
while tracing, so that one module serves jit and pmap.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.collectives import global_sum
from deeptalk_jax.types import Array


class BatchNorm(nn.Module):
    """Normalises the last axis with statistics over all other axes.

    Scale and bias are parameters; the running `mean` and `variance` are in the collection `batch_stats`. All four are
    float32.

    Attributes:
        momentum: weight of the old running statistics, which is one minus torch's momentum (torch's default of 0.1
            is 0.9 here).
        epsilon: added to the variance; torch's default.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "... d"], *, train: bool = False) -> Float[Array, "... d"]:
        """Normalises with batch statistics and updates the running ones if `train`, else with the running ones."""
        dim = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (dim,), jnp.float32)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (dim,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (dim,))
        bias = self.param("bias", nn.initializers.zeros, (dim,))
        if train:
            axes = tuple(range(x.ndim - 1))
            # Sums are float32: in bfloat16 the variance is lost in the difference of squares.
            values = x.astype(jnp.float32)
            count = global_sum(jnp.asarray(values.size / dim, jnp.float32))
            mean = global_sum(jnp.sum(values, axes)) / count  # [d]
            centred = values - jnp.broadcast_to(mean, x.shape)
            variance = global_sum(jnp.sum(jnp.square(centred), axes)) / count  # [d]
            if not self.is_initializing():
                unbiased = variance * count / jnp.maximum(count - 1.0, 1.0)
                running_mean.value = self._blend(running_mean.value, mean)
                running_variance.value = self._blend(running_variance.value, unbiased)
        else:
            mean, variance = running_mean.value, running_variance.value
        gain = scale * jax.lax.rsqrt(variance + self.epsilon)
        gain, offset = (jnp.broadcast_to(row, x.shape) for row in (gain, bias - mean * gain))
        return (x * gain + offset).astype(x.dtype)

    def _blend(self, old: Float[Array, " d"], new: Float[Array, " d"]) -> Float[Array, " d"]:
        return self.momentum * old + (1.0 - self.momentum) * jax.lax.stop_gradient(new)
