"""Vector quantiser with exponential-moving-average codebook (van den Oord et al., NeurIPS 2017, appendix A.1).

The codebook moves by running statistics of the latents that choose each code, not by gradient; the encoder feels
the straight-through gradient and the commitment loss. Statistics span the global batch (see `collectives`).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from deeptalk_jax.models.collectives import global_rows, global_sum
from deeptalk_jax.types import Array

SMOOTHINGS = ("standard", "published")
INITIALISATIONS = ("uniform", "first_batch")


class Quantized(NamedTuple):
    """Result of a quantiser.

    Attributes:
        codes: `[b, t, d]` nearest codes, with the gradient of the latents (straight-through).
        indices: `[b, t]` int32.
        commitment: scalar, `commitment_weight * MSE(sg(code), latent)`.
        perplexity: scalar, exp of the entropy of code use in this batch.
    """

    codes: Array
    indices: Array
    commitment: Array
    perplexity: Array


def nearest_code(latents: Float[Array, "... d"], codebook: Float[Array, "k d"]) -> Int[Array, "..."]:
    """Index of the nearest code in squared L2, by matrix product: no `[..., k, d]` is built."""
    # float32 at full precision: bf16 or TF32 products would flip codes that lie close together.
    latents, codebook = latents.astype(jnp.float32), codebook.astype(jnp.float32)
    product = jnp.einsum("...d,kd->...k", latents, codebook, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.broadcast_to(jnp.sum(jnp.square(codebook), axis=-1), product.shape)
    return jnp.argmin(squared - 2.0 * product, axis=-1).astype(jnp.int32)


def perplexity(counts: Float[Array, " k"]) -> Float[Array, ""]:
    """Exp of the entropy of the code counts: the number of codes in effective use, 1 to k."""
    share = counts / jnp.maximum(jnp.sum(counts), 1.0)
    return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0)), 0.0)))


class EMAQuantizer(nn.Module):
    """Quantiser whose state lives in the collection `codebook`: `embedding`, `ema_count`, `ema_sum`, `updates`.

    Attributes:
        codebook_size: number of codes k.
        code_dim: size of a code d.
        decay: weight of the old statistics.
        epsilon: additive smoothing of the counts.
        commitment_weight: weight of the commitment loss.
        ema_smoothing: "standard" scales the smoothed counts by the number of latents, "published" by the batch
            size, which is what the published code does.
        initialisation: "uniform" in (-1/k, 1/k), or "first_batch": random latents of the first training batch.
        revive_after: a code that no latent chose for so many updates moves to a random latent; 0 never.
        axis_name: pmap axis of the statistics, None under jit.
    """

    codebook_size: int
    code_dim: int
    decay: float = 0.95
    epsilon: float = 1e-5
    commitment_weight: float = 0.25
    ema_smoothing: str = "standard"
    initialisation: str = "uniform"
    revive_after: int = 0
    axis_name: str | None = None

    def setup(self):
        """Creates the codebook state."""
        for field, choices in (("ema_smoothing", SMOOTHINGS), ("initialisation", INITIALISATIONS)):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {choices}")
        shape = (self.codebook_size, self.code_dim)
        bound = 1.0 / self.codebook_size

        def uniform():
            return jax.random.uniform(self.make_rng("params"), shape, jnp.float32, -bound, bound)

        self.embedding = self.variable("codebook", "embedding", uniform)
        self.ema_count = self.variable("codebook", "ema_count", jnp.ones, shape[:1], jnp.float32)
        self.ema_sum = self.variable("codebook", "ema_sum", lambda: self.embedding.value)
        self.idle_updates = self.variable("codebook", "idle_updates", jnp.zeros, shape[:1], jnp.int32)
        self.updates = self.variable("codebook", "updates", jnp.zeros, (), jnp.int32)

    def __call__(self, latents: Float[Array, "b t d"], *, train: bool = False) -> Quantized:
        """Quantises; while training also moves the codebook, after using it.

        Raises:
            ValueError: the latents' last axis is not `code_dim`.
        """
        if latents.shape[-1] != self.code_dim:
            raise ValueError(f"latents have {latents.shape[-1]} channels, the codebook {self.code_dim}")
        if train and self.initialisation == "first_batch" and not self.is_initializing():
            self._start_from(latents)
        indices = nearest_code(latents, self.embedding.value)
        codes = self.lookup(indices)
        count = global_sum(
            jnp.zeros(self.codebook_size).at[indices].add(1.0, mode="promise_in_bounds"), self.axis_name
        )
        if train and not self.is_initializing():
            self._update(latents, indices, count)
        commitment = self.commitment_weight * jnp.mean(jnp.square(jax.lax.stop_gradient(codes) - latents))
        straight_through = latents + jax.lax.stop_gradient(codes - latents)
        return Quantized(straight_through, indices, commitment, perplexity(count))

    def lookup(self, indices: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Codes of given indices."""
        return self.embedding.value[indices]

    def mix(self, weights: Float[Array, "b t k"]) -> Float[Array, "b t d"]:
        """Codes weighted by a (soft or one-hot) choice, differentiable in the choice."""
        return jnp.einsum("btk,kd->btd", weights, self.embedding.value)

    def _update(self, latents: Array, indices: Array, count: Array) -> None:
        """EMA step: `embedding = sum / count` with smoothed counts."""
        latents = jax.lax.stop_gradient(latents.astype(jnp.float32))
        total = global_sum(
            jnp.zeros((self.codebook_size, self.code_dim)).at[indices].add(latents), self.axis_name
        )
        num_latents = jnp.sum(count)
        scale = num_latents if self.ema_smoothing == "standard" else num_latents / latents.shape[1]
        ema_count = self.decay * self.ema_count.value + (1.0 - self.decay) * count
        ema_count = (ema_count + self.epsilon) / (scale + self.codebook_size * self.epsilon) * scale
        ema_sum = self.decay * self.ema_sum.value + (1.0 - self.decay) * total
        self.ema_count.value, self.ema_sum.value = ema_count, ema_sum
        self.embedding.value = ema_sum / ema_count[:, None]
        self.idle_updates.value = jnp.where(count > 0, 0, self.idle_updates.value + 1)
        self.updates.value = self.updates.value + 1
        if self.revive_after:
            dead = self.idle_updates.value >= self.revive_after
            self._replace(dead, self._random_latents(latents))

    def _start_from(self, latents: Array) -> None:
        """On the first update, puts every code on a random latent of the batch."""
        first = jnp.broadcast_to(self.updates.value == 0, (self.codebook_size,))
        self._replace(first, self._random_latents(jax.lax.stop_gradient(latents.astype(jnp.float32))))

    def _random_latents(self, latents: Array) -> Array:
        """`[k, d]` latents drawn from the global batch, the same on every device."""
        rows = global_rows(
            latents.reshape(latents.shape[0] * latents.shape[1], self.code_dim), self.axis_name
        )
        picks = jax.random.randint(self.make_rng("sample"), (self.codebook_size,), 0, rows.shape[0])
        return rows[picks]

    def _replace(self, where: Array, rows: Array) -> None:
        """Moves the codes of `where [k]` to `rows [k, d]` with the weight of one latent."""
        column = where[:, None]
        self.embedding.value = jnp.where(column, rows, self.embedding.value)
        self.ema_count.value = jnp.where(where, 1.0, self.ema_count.value)
        self.ema_sum.value = jnp.where(column, rows, self.ema_sum.value)
        self.idle_updates.value = jnp.where(where, 0, self.idle_updates.value)
