"""Batch normalisation over the global batch (Ioffe and Szegedy, ICML 2015).

Differs from `flax.linen.BatchNorm` in one number: the running variance takes the unbiased estimate, as torch
does, so that a published training run can be followed step by step.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.collectives import global_sum
from deeptalk_jax.types import Array


class BatchNorm(nn.Module):
    """Normalises the last axis with statistics of all others.

    Attributes:
        momentum: weight of the old running statistics (torch's 0.1 is 0.9 here).
        epsilon: added to the variance.
        param_dtype: type of scale and bias; statistics are float32.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... d"], *, train: bool = False) -> Float[Array, "... d"]:
        """Batch statistics while training (and updates `batch_stats`), running ones otherwise."""
        dim = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (dim,), jnp.float32)
        running_variance = self.variable("batch_stats", "variance", jnp.ones, (dim,), jnp.float32)
        scale = self.param("scale", nn.initializers.ones, (dim,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (dim,), self.param_dtype)
        if train:
            axes = tuple(range(x.ndim - 1))
            # Sums in float32: the difference of bf16 squares loses the variance.
            values = x.astype(jnp.float32)
            count = global_sum(jnp.asarray(values.size / dim, jnp.float32))
            mean = global_sum(jnp.sum(values, axes)) / count
            centred = values - jnp.broadcast_to(mean, x.shape)
            variance = global_sum(jnp.sum(jnp.square(centred), axes)) / count
            if not self.is_initializing():
                unbiased = variance * count / jnp.maximum(count - 1.0, 1.0)
                running_mean.value = self._blend(running_mean.value, mean)
                running_variance.value = self._blend(running_variance.value, unbiased)
        else:
            mean, variance = running_mean.value, running_variance.value
        gain = scale * jax.lax.rsqrt(variance + self.epsilon)
        gain, offset = (jnp.broadcast_to(row, x.shape) for row in (gain, bias - mean * gain))
        return (x * gain + offset).astype(x.dtype)

    def _blend(self, old: Array, new: Array) -> Array:
        return self.momentum * old + (1.0 - self.momentum) * jax.lax.stop_gradient(new)
