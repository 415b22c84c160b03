"""Vector quantisers (van den Oord et al., NeurIPS 2017): codes as running means of latents, or trained by gradient.

In both the encoder feels the straight-through gradient and the commitment loss. Statistics span the global batch
(see `collectives`).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from deeptalk_jax.collectives import global_mean, global_rows, global_sum
from deeptalk_jax.models.codebook_start import kmeans_plus_plus, random_rows
from deeptalk_jax.types import Array

UPDATES = ("ema", "gradient")
SMOOTHINGS = ("standard", "published", "none")
INITIALISATIONS = ("uniform", "first_batch", "kmeans++")
# Unsmoothed counts of unused codes fall to zero; below this a code keeps its place instead of becoming 0 / 0.
_LEAST_COUNT = 1e-20


class Quantized(NamedTuple):
    """Result of a quantiser.

    Attributes:
        codes: `[b, t, d]` nearest codes, with the gradient of the latents (straight-through).
        indices: `[b, t]` int32.
        commitment: scalar, `commitment_weight * MSE(sg(code), latent)`.
        perplexity: scalar, exp of the entropy of code use in this batch.
        codebook_loss: scalar, `MSE(code, sg(latent))`; None where codes are running means.
    """

    codes: Array
    indices: Array
    commitment: Array
    perplexity: Array
    codebook_loss: Array | None = None


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


class Quantizer(nn.Module):
    """What the quantisers share; a subclass gives the property `codebook`, `[k, d]`.

    Attributes:
        codebook_size: number of codes k.
        code_dim: size of a code d.
        commitment_weight: weight of the commitment loss.
    """

    codebook_size: int
    code_dim: int
    commitment_weight: float = 0.25

    def lookup(self, indices: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Codes of given indices."""
        return self.codebook[indices]

    def mix(self, weights: Float[Array, "b t k"]) -> Float[Array, "b t d"]:
        """Codes weighted by a (soft or one-hot) choice, differentiable in the choice."""
        return jnp.einsum("btk,kd->btd", weights, self.codebook)

    def _uniform_codes(self, key: KeyArray) -> Float[Array, "k d"]:
        """Uniform in (-1/k, 1/k)."""
        bound = 1.0 / self.codebook_size
        return jax.random.uniform(key, (self.codebook_size, self.code_dim), jnp.float32, -bound, bound)

    def _checked(self, latents: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """The latents in float32, in which they are compared with codes and averaged."""
        if latents.shape[-1] != self.code_dim:
            raise ValueError(f"latents have {latents.shape[-1]} channels, the codebook {self.code_dim}")
        return latents.astype(jnp.float32)

    def _quantise(self, latents: Float[Array, "b t d"]) -> tuple[Quantized, Array, Array]:
        """The result, the codes without straight-through gradient, and how many latents chose each code."""
        indices = nearest_code(latents, self.codebook)
        codes = self.lookup(indices)
        count = global_sum(jnp.zeros(self.codebook_size).at[indices].add(1.0, mode="promise_in_bounds"))
        commitment = self.commitment_weight * global_mean(jnp.square(jax.lax.stop_gradient(codes) - latents))
        straight_through = latents + jax.lax.stop_gradient(codes - latents)
        return Quantized(straight_through, indices, commitment, perplexity(count)), codes, count


class GradientQuantizer(Quantizer):
    """Codes are parameters, drawn to their latents by `codebook_loss` (equation 3)."""

    def setup(self):
        """Creates the codebook."""
        self.codebook = self.param("embedding", self._uniform_codes)

    def __call__(self, latents: Float[Array, "b t d"], *, train: bool = False) -> Quantized:
        """Quantises; training and evaluation are alike.

        Raises:
            ValueError: the latents' last axis is not `code_dim`.
        """
        latents = self._checked(latents)
        quantized, codes, _ = self._quantise(latents)
        loss = global_mean(jnp.square(codes - jax.lax.stop_gradient(latents)))
        return quantized._replace(codebook_loss=loss)


class EMAQuantizer(Quantizer):
    """Codes are running means of the latents that choose them (appendix A.1), updated outside of the gradient.

    The state lives in the collection `codebook`: `embedding`, `ema_count`, `ema_sum`, `idle_updates`, `updates`.

    Attributes:
        decay: weight of the old statistics.
        epsilon: additive smoothing of the counts.
        ema_smoothing: "standard" scales the smoothed counts by the number of latents, "published" by the batch
            size, which is what the published code does; "none" leaves the counts as they are.
        initialisation: "uniform" in (-1/k, 1/k), or from the latents of the first training batch: "first_batch"
            draws them evenly, "kmeans++" apart from each other.
        start_after: updates during which latents pass as they are; only then the codebook starts from a batch, and
            from latents that mean something (Lancucki et al., IJCNN 2020).
        revive_after: a code that no latent chose for so many updates moves to a random latent; 0 never.
    """

    decay: float = 0.95
    epsilon: float = 1e-5
    ema_smoothing: str = "standard"
    initialisation: str = "uniform"
    start_after: int = 0
    revive_after: int = 0

    def setup(self):
        """Creates the codebook state."""
        for field, choices in (("ema_smoothing", SMOOTHINGS), ("initialisation", INITIALISATIONS)):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field}={getattr(self, field)!r} is not one of {choices}")
        if self.start_after and self.initialisation == "uniform":
            raise ValueError(
                f"start_after={self.start_after} needs a start from a batch, not initialisation='uniform'"
            )
        sizes = (self.codebook_size,)
        self.embedding = self.variable(
            "codebook", "embedding", lambda: self._uniform_codes(self.make_rng("params"))
        )
        self.ema_count = self.variable("codebook", "ema_count", jnp.ones, sizes, jnp.float32)
        self.ema_sum = self.variable("codebook", "ema_sum", lambda: self.embedding.value)
        self.idle_updates = self.variable("codebook", "idle_updates", jnp.zeros, sizes, jnp.int32)
        self.updates = self.variable("codebook", "updates", jnp.zeros, (), jnp.int32)

    @property
    def codebook(self) -> Float[Array, "k d"]:
        """The codes as they stand."""
        return self.embedding.value

    def __call__(self, latents: Float[Array, "b t d"], *, train: bool = False) -> Quantized:
        """Quantises; while training also moves the codebook, after using it.

        Raises:
            ValueError: the latents' last axis is not `code_dim`.
        """
        latents = self._checked(latents)
        train = train and not self.is_initializing()
        if train and self.initialisation != "uniform":
            self._start_from(latents)
        quantized, _, count = self._quantise(latents)
        if train:
            waiting = self.updates.value < self.start_after
            self._update(latents, quantized.indices, count)
            if self.start_after:
                quantized = quantized._replace(
                    codes=jnp.where(waiting, latents, quantized.codes),
                    commitment=jnp.where(waiting, 0.0, quantized.commitment),
                )
        return quantized

    def _update(self, latents: Array, indices: Array, count: Array) -> None:
        """EMA step: `embedding = sum / count` with smoothed counts."""
        latents = jax.lax.stop_gradient(latents)
        total = global_sum(jnp.zeros((self.codebook_size, self.code_dim)).at[indices].add(latents))
        num_latents = jnp.sum(count)
        ema_count = self.decay * self.ema_count.value + (1.0 - self.decay) * count
        if self.ema_smoothing != "none":
            scale = num_latents if self.ema_smoothing == "standard" else num_latents / latents.shape[1]
            ema_count = (ema_count + self.epsilon) / (scale + self.codebook_size * self.epsilon) * scale
        ema_sum = self.decay * self.ema_sum.value + (1.0 - self.decay) * total
        self.ema_count.value, self.ema_sum.value = ema_count, ema_sum
        mean = ema_sum / jnp.maximum(ema_count, _LEAST_COUNT)[:, None]
        self.embedding.value = jnp.where((ema_count > _LEAST_COUNT)[:, None], mean, self.embedding.value)
        self.idle_updates.value = jnp.where(count > 0, 0, self.idle_updates.value + 1)
        self.updates.value = self.updates.value + 1
        if self.revive_after:
            dead = self.idle_updates.value >= self.revive_after
            key = self.make_rng("sample")
            self._replace(dead, random_rows(self._global_latents(latents), self.codebook_size, key))

    def _start_from(self, latents: Array) -> None:
        """On the update after `start_after` others, puts every code on a latent of the batch."""
        draw = kmeans_plus_plus if self.initialisation == "kmeans++" else random_rows
        key, latents = self.make_rng("sample"), self._global_latents(latents)
        first = self.updates.value == self.start_after
        # A condition, not a choice between results: k-means++ takes as many steps as there are codes.
        codes = jax.lax.cond(
            first, lambda: draw(latents, self.codebook_size, key), lambda: self.embedding.value
        )
        self._replace(jnp.broadcast_to(first, (self.codebook_size,)), codes)

    def _global_latents(self, latents: Array) -> Float[Array, "n d"]:
        """Latents of the global batch, the same on every device."""
        latents = jax.lax.stop_gradient(latents)
        rows = latents.reshape(latents.shape[0] * latents.shape[1], self.code_dim)
        return global_rows(rows)

    def _replace(self, where: Array, rows: Array) -> None:
        """Moves the codes of `where [k]` to `rows [k, d]` with the weight of one latent."""
        column = where[:, None]
        self.embedding.value = jnp.where(column, rows, self.embedding.value)
        self.ema_count.value = jnp.where(where, 1.0, self.ema_count.value)
        self.ema_sum.value = jnp.where(column, rows, self.ema_sum.value)
        self.idle_updates.value = jnp.where(where, 0, self.idle_updates.value)


def make_quantizer(
    update: str,
    codebook_size: int,
    code_dim: int,
    *,
    commitment_weight: float,
    initialisation: str,
    start_after: int,
    revive_after: int,
    **ema: float | str,
) -> Quantizer:
    """An `EMAQuantizer` (`update="ema"`) or a `GradientQuantizer` ("gradient"); `ema` is for the former alone.

    Raises:
        ValueError: another update, or a codebook trained by gradient that is to start from a batch or to be revived.
    """
    if update == "ema":
        start = {"initialisation": initialisation, "start_after": start_after, "revive_after": revive_after}
        return EMAQuantizer(codebook_size, code_dim, commitment_weight, **start, **ema)
    if update != "gradient":
        raise ValueError(f"codebook_update={update!r} is not one of {UPDATES}")
    if initialisation != "uniform" or start_after or revive_after:
        raise ValueError(
            "codes trained by gradient start uniform, at once, and are not revived, got "
            f"initialisation={initialisation!r}, start_after={start_after}, revive_after={revive_after}"
        )
    return GradientQuantizer(codebook_size, code_dim, commitment_weight)
