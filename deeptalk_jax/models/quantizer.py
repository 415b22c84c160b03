"""Vector quantisers (van den Oord et al., NeurIPS 2017): codes as running means of latents, or trained by gradient.

In both, the encoder gets the straight-through gradient and the commitment loss. All statistics are over the global
batch (see `collectives`). docs/method.md, section 3, lists where the published code differs.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from deeptalk_jax.collectives import global_mean, global_rows, global_sum
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.types import Array

UPDATES = ("ema", "gradient")
SMOOTHINGS = ("standard", "published", "none")
INITIALISATIONS = ("uniform", "first_batch", "kmeans++")
# Counts of unused codes decay to zero if they are not smoothed. Below this count a code keeps its value, because
# sum / count would be 0 / 0.
_LEAST_COUNT = 1e-20


class Quantized(NamedTuple):
    """Result of a quantiser.

    Attributes:
        codes: `[b, t, d]` nearest codes, with the gradient of the latents (straight-through).
        indices: `[b, t]` int32 indices of the nearest codes.
        commitment: scalar, `commitment_weight * MSE(sg(code), latent)`.
        perplexity: scalar, exp of the entropy of code use in this batch.
        codebook_loss: scalar, `MSE(code, sg(latent))`; None if the codes are running means.
    """

    codes: Array
    indices: Array
    commitment: Array
    perplexity: Array
    codebook_loss: Array | None = None


def nearest_code(latents: Float[Array, "... d"], codebook: Float[Array, "k d"]) -> Int[Array, "..."]:
    """Returns the index of the nearest code in squared L2, by a matrix product that needs no `[..., k, d]` array."""
    # float32 at full precision: bfloat16 or TF32 products would confuse codes that are close together.
    latents, codebook = latents.astype(jnp.float32), codebook.astype(jnp.float32)
    product = jnp.einsum("...d,kd->...k", latents, codebook, precision=jax.lax.Precision.HIGHEST)
    squared = jnp.broadcast_to(jnp.sum(jnp.square(codebook), axis=-1), product.shape)
    return jnp.argmin(squared - 2.0 * product, axis=-1).astype(jnp.int32)


def perplexity(counts: Float[Array, " k"]) -> Float[Array, ""]:
    """Returns exp of the entropy of the code counts: the effective number of codes in use, from 1 to k."""
    share = counts / jnp.maximum(jnp.sum(counts), 1.0)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))


def random_rows(rows: Float[Array, "n d"], num_codes: int, key: KeyArray) -> Float[Array, "k d"]:
    """Draws rows uniformly with replacement."""
    return rows[jax.random.randint(key, (num_codes,), 0, rows.shape[0])]


def kmeans_plus_plus(rows: Float[Array, "n d"], num_codes: int, key: KeyArray) -> Float[Array, "k d"]:
    """Draws rows by k-means++ (Arthur and Vassilvitskii, SODA 2007, section 2.2).

    The first row is drawn uniformly, every other row with probability proportional to its squared distance from the
    nearest code so far. Distant groups of rows therefore get a code before near groups get a second one. Once every
    row coincides with a code, the draw is uniform again. No `[n, k, d]` array is built.
    """

    def squared_distance(code):
        # By differences instead of products: a row must have a distance of exactly 0 from itself, otherwise it could
        # be drawn again.
        return jnp.sum(jnp.square(rows - jnp.broadcast_to(code[None], rows.shape)), axis=-1)

    def draw(nearest, key):
        weights = jnp.where(jnp.any(nearest > 0), nearest, 1.0)  # [n]
        code = rows[jax.random.categorical(key, jnp.log(weights))]
        return jnp.minimum(nearest, squared_distance(code)), code

    keys = jax.random.split(key, num_codes)
    first = rows[jax.random.randint(keys[0], (), 0, rows.shape[0])]
    _, others = jax.lax.scan(draw, squared_distance(first), keys[1:])
    return jnp.concatenate([first[None], others])


class Quantizer(nn.Module):
    """Base class of the quantisers; a subclass provides the property `codebook`, `[k, d]`.

    Attributes:
        codebook_size: number of codes k.
        code_dim: size of a code d.
        commitment_weight: weight of the commitment loss; van den Oord et al. (section 3.2) and the published config
            use 0.25.
    """

    codebook_size: int
    code_dim: int
    commitment_weight: float = 0.25

    def lookup(self, indices: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Returns the codes with the given indices."""
        return self.codebook[indices]

    def mix(self, weights: Float[Array, "b t k"]) -> Float[Array, "b t d"]:
        """Returns codes averaged with (soft or one-hot) weights, differentiable with respect to the weights."""
        return jnp.einsum("btk,kd->btd", weights, self.codebook)

    def _uniform_codes(self, key: KeyArray) -> Float[Array, "k d"]:
        """Draws codes uniformly from (-1/k, 1/k)."""
        bound = 1.0 / self.codebook_size
        return jax.random.uniform(key, (self.codebook_size, self.code_dim), jnp.float32, -bound, bound)

    def _checked(self, latents: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
        """Returns the latents in float32, the type in which they are compared with codes and averaged."""
        if latents.shape[-1] != self.code_dim:
            raise ValueError(f"latents have {latents.shape[-1]} channels, expected code_dim={self.code_dim}")
        return latents.astype(jnp.float32)

    def _quantise(
        self, latents: Float[Array, "b t d"]
    ) -> tuple[Quantized, Float[Array, "b t d"], Float[Array, " k"]]:
        """Returns the result, the codes without straight-through gradient, and the number of latents per code."""
        indices = nearest_code(latents, self.codebook)  # [b, t]
        codes = self.lookup(indices)  # [b, t, d]
        count = global_sum(jnp.zeros(self.codebook_size).at[indices].add(1.0, mode="promise_in_bounds"))
        commitment = self.commitment_weight * global_mean(jnp.square(jax.lax.stop_gradient(codes) - latents))
        straight_through = latents + jax.lax.stop_gradient(codes - latents)
        return Quantized(straight_through, indices, commitment, perplexity(count)), codes, count


class GradientQuantizer(Quantizer):
    """Codes are parameters that `codebook_loss` moves towards their latents (van den Oord et al., equation 3)."""

    def setup(self):
        """Creates the parameter `embedding`."""
        self.codebook = self.param("embedding", self._uniform_codes)

    def __call__(self, latents: Float[Array, "b t d"], *, train: bool = False) -> Quantized:
        """Quantises latents; `train` makes no difference.

        Raises:
            ValueError: the last axis of the latents is not `code_dim`.
        """
        latents = self._checked(latents)
        quantized, codes, _ = self._quantise(latents)
        loss = global_mean(jnp.square(codes - jax.lax.stop_gradient(latents)))
        return quantized._replace(codebook_loss=loss)


class EMAQuantizer(Quantizer):
    """Codes are running means of the latents that choose them (van den Oord et al., appendix A.1).

    The update does not use gradients. Its state is in the collection `codebook`: `embedding`, `ema_count`, `ema_sum`,
    `idle_updates`, `updates`.

    Attributes:
        decay: weight of the old statistics; 0.95 as published.
        epsilon: additive smoothing of the counts.
        ema_smoothing: "standard" scales the smoothed counts by the number of latents, "published" by the batch size,
            which is what the published code does, and "none" does not smooth counts.
        initialisation: "uniform" draws codes from (-1/k, 1/k). The other choices take codes from the latents of the
            first training batch: "first_batch" draws them uniformly, "kmeans++" far from each other.
        start_after: number of updates during which latents are passed through without quantisation. The codebook is
            initialised from the batch after them, when latents are more informative (Lancucki et al., IJCNN 2020).
        revive_after: a code that no latent has chosen for this number of updates is moved to a random latent; 0 means
            never.
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
                raise ConfigError(f"{field}={getattr(self, field)!r} is not one of {choices}")
        if self.start_after and self.initialisation == "uniform":
            raise ConfigError(
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
        """The current codes."""
        return self.embedding.value

    def __call__(self, latents: Float[Array, "b t d"], *, train: bool = False) -> Quantized:
        """Quantises latents; if `train`, then updates the codebook (stream `sample`).

        Raises:
            ValueError: the last axis of the latents is not `code_dim`.
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

    def _update(
        self, latents: Float[Array, "b t d"], indices: Int[Array, "b t"], count: Float[Array, " k"]
    ) -> None:
        """Applies the EMA step `embedding = sum / count` with smoothed counts."""
        latents = jax.lax.stop_gradient(latents)
        total = global_sum(jnp.zeros((self.codebook_size, self.code_dim)).at[indices].add(latents))  # [k, d]
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

    def _start_from(self, latents: Float[Array, "b t d"]) -> None:
        """Replaces all codes by latents of the batch, on the first update after `start_after` updates."""
        draw = kmeans_plus_plus if self.initialisation == "kmeans++" else random_rows
        key, latents = self.make_rng("sample"), self._global_latents(latents)
        first = self.updates.value == self.start_after
        # `cond` instead of `where`, because k-means++ is a loop over all codes and is needed once.
        codes = jax.lax.cond(
            first, lambda: draw(latents, self.codebook_size, key), lambda: self.embedding.value
        )
        self._replace(jnp.broadcast_to(first, (self.codebook_size,)), codes)

    def _global_latents(self, latents: Float[Array, "b t d"]) -> Float[Array, "n d"]:
        """Returns the latents of the global batch, which are the same on every device."""
        latents = jax.lax.stop_gradient(latents)
        rows = latents.reshape(latents.shape[0] * latents.shape[1], self.code_dim)
        return global_rows(rows)

    def _replace(self, where: Array, rows: Float[Array, "k d"]) -> None:
        """Sets the codes at `where` (`[k]` bool) to `rows`, with the count of one latent."""
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
    """Creates an `EMAQuantizer` (`update="ema"`) or a `GradientQuantizer` (`update="gradient"`).

    Args:
        update: one of `UPDATES`.
        codebook_size: number of codes.
        code_dim: size of a code.
        commitment_weight: weight of the commitment loss.
        initialisation: see `EMAQuantizer`; codes trained by gradient start "uniform".
        start_after: see `EMAQuantizer`; 0 for codes trained by gradient.
        revive_after: see `EMAQuantizer`; 0 for codes trained by gradient.
        **ema: fields of `EMAQuantizer` that have no meaning for codes trained by gradient.

    Raises:
        ConfigError: `update` is not one of `UPDATES`, or codes trained by gradient are asked to start from a batch or
            to be revived.
    """
    if update == "ema":
        start = {"initialisation": initialisation, "start_after": start_after, "revive_after": revive_after}
        return EMAQuantizer(codebook_size, code_dim, commitment_weight, **start, **ema)
    if update != "gradient":
        raise ConfigError(f"codebook_update={update!r} is not one of {UPDATES}")
    if initialisation != "uniform" or start_after or revive_after:
        raise ConfigError(
            "codebook_update='gradient' starts uniform, at once, and does not revive codes; got "
            f"initialisation={initialisation!r}, start_after={start_after}, revive_after={revive_after}"
        )
    return GradientQuantizer(codebook_size, code_dim, commitment_weight)
