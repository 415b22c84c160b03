"""DEE: dynamic emotion embedding (DEEPTalk, section 3.1; SPEC section 2).

Two towers map speech and facial motion to diagonal Gaussians in one space: the means lie on the unit sphere, the
log-variances are free and say how ambiguous a clip is.
"""

import einops
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.models.gpo import Pooling
from deeptalk_jax.models.positions import sinusoidal_positions
from deeptalk_jax.models.transformer import TransformerEncoder
from deeptalk_jax.types import Array, Gaussian


def unit_length(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """`x / (||x|| + 1e-8)`, the published normalisation, with a finite gradient at zero."""
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    norm = jnp.where(squared > 0.0, jnp.sqrt(jnp.where(squared > 0.0, squared, 1.0)), 0.0)
    return x / (norm + 1e-8)


def single_gaussian(components: Gaussian) -> Gaussian:
    """One Gaussian `[b, d]` for a mixture `[b, k, d]` of equal weights: that of its one component if k is 1.

    Else its mean is the direction of the mixture's, and its variance the mixture's second moment about that point,
    so that the expected squared distance of a sample from it is kept.
    """
    if components.mean.shape[1] == 1:
        return Gaussian(*(moment[:, 0] for moment in components))
    mean = unit_length(jnp.mean(components.mean, axis=1))
    spread = jnp.exp(components.log_variance) + jnp.square(components.mean - mean[:, None])
    return Gaussian(mean, jnp.log(jnp.mean(spread, axis=1)))


class GaussianHead(nn.Module):
    """Sequence to a mixture of Gaussians: a transformer layer, a linear map and a pooling for each of the two moments.

    Attributes:
        embedding_dim: size of the emotion space.
        num_heads: attention heads.
        mlp_dim: feed-forward width.
        pooling: kind of pooling.
        dropout_rate: of the transformer layers.
        initial_log_variance: bias of the log-variance map at the start.
        num_components: Gaussians of the mixture.
        dtype: compute type of the layers; pooling and moments are float32.
    """

    embedding_dim: int = 128
    num_heads: int = 8
    mlp_dim: int = 2048
    pooling: str = "gpo"
    dropout_rate: float = 0.1
    initial_log_variance: float = 0.0
    num_components: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"], *, train: bool = False
    ) -> Gaussian:
        """Components `[b, k, d]` of every clip, of equal weights."""
        width = self.num_components * self.embedding_dim

        def moment(name, bias_init):
            encoded = TransformerEncoder(
                1, self.num_heads, self.mlp_dim, "relu", self.dropout_rate, self.dtype, name=f"{name}_encoder"
            )(x, mask=mask, train=train)
            mapped = nn.Dense(width, dtype=self.dtype, bias_init=bias_init, name=f"{name}_map")(encoded)
            # float32: distances of means are differences of nearly equal numbers.
            pooled = Pooling(self.pooling, name=f"{name}_pool")(mapped.astype(jnp.float32), mask)
            return einops.rearrange(pooled, "b (k d) -> b k d", k=self.num_components)

        mean = moment("mean", nn.initializers.zeros)
        log_variance = moment("log_variance", nn.initializers.constant(self.initial_log_variance))
        return Gaussian(unit_length(mean), log_variance)


class Tower(nn.Module):
    """Positions, a transformer encoder and the Gaussian head: the part that both towers share.

    Attributes:
        num_layers: depth of the encoder.
        num_heads: attention heads.
        mlp_dim: feed-forward width.
        max_length: longest sequence it takes, positions.
        embedding_dim: size of the emotion space.
        pooling: kind of pooling.
        dropout_rate: of positions and layers.
        initial_log_variance: see `GaussianHead`.
        num_components: Gaussians of the mixture that a clip becomes.
        dtype: compute type; moments are float32.
    """

    num_layers: int
    num_heads: int
    mlp_dim: int
    max_length: int
    embedding_dim: int = 128
    pooling: str = "gpo"
    dropout_rate: float = 0.1
    initial_log_variance: float = 0.0
    num_components: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b s d"], mask: Bool[Array, "b s"], *, train: bool = False
    ) -> Gaussian:
        """Components `[b, k, d]` of every clip.

        Raises:
            ValueError: the sequence is longer than `max_length`.
        """
        length, dim = x.shape[1:]
        if length > self.max_length:
            raise ValueError(f"sequence of {length} positions is longer than max_length={self.max_length}")
        x = x.astype(self.dtype) + jnp.asarray(sinusoidal_positions(length, dim), self.dtype)[None]
        x = Dropout(self.dropout_rate)(x, train=train)
        x = TransformerEncoder(
            self.num_layers,
            self.num_heads,
            self.mlp_dim,
            "relu",
            self.dropout_rate,
            self.dtype,
            name="encoder",
        )(x, mask=mask, train=train)
        return GaussianHead(
            self.embedding_dim,
            self.num_heads,
            self.mlp_dim,
            self.pooling,
            self.dropout_rate,
            self.initial_log_variance,
            self.num_components,
            self.dtype,
            name="head",
        )(x, mask, train=train)


class DEE(nn.Module):
    """Both towers and the two learned numbers of the match probability.

    Attributes:
        speech_encoder: module `(waveform, num_samples, train=) -> SpeechFeatures`.
        audio_tower: tower over speech features; longer input is cut at its `max_length`.
        motion_tower: tower over FER features.
        motion_dim: width of the motion tower.
        initial_scale: start of the match logit's scale.
        initial_shift: start of the match logit's shift.
        dtype: compute type of what is neither encoder nor tower.
    """

    speech_encoder: nn.Module
    audio_tower: Tower
    motion_tower: Tower
    motion_dim: int = 512
    initial_scale: float = 5.0
    initial_shift: float = 5.0
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Besides the towers: the map of FER features and the criterion's scale and shift."""
        self.motion_map = nn.Dense(self.motion_dim, dtype=self.dtype)
        self.scale = self.param("scale", nn.initializers.constant(self.initial_scale), ())
        self.shift = self.param("shift", nn.initializers.constant(self.initial_shift), ())

    def __call__(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        features: Float[Array, "b t d"],
        num_frames: Int[Array, " b"],
        *,
        train: bool = False,
    ) -> tuple[Gaussian, Gaussian]:
        """Gaussians of the speech and of the motion of every clip."""
        both = self.components(waveform, num_samples, features, num_frames, train=train)
        return tuple(map(single_gaussian, both))

    def components(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        features: Float[Array, "b t d"],
        num_frames: Int[Array, " b"],
        *,
        train: bool = False,
    ) -> tuple[Gaussian, Gaussian]:
        """The same before the components `[b, k, d]` of every clip become one Gaussian."""
        audio = self._audio_components(waveform, num_samples, train=train)
        return audio, self._motion_components(features, num_frames, train=train)

    def embed_audio(
        self, waveform: Float[Array, "b s"], num_samples: Int[Array, " b"], *, train: bool = False
    ) -> Gaussian:
        """Gaussian of every waveform (16 kHz, in [-1, 1]); speech past the tower's `max_length` is not heard."""
        return single_gaussian(self._audio_components(waveform, num_samples, train=train))

    def embed_motion(
        self, features: Float[Array, "b t d"], num_frames: Int[Array, " b"], *, train: bool = False
    ) -> Gaussian:
        """Gaussian of every sequence of FER features (25 Hz)."""
        return single_gaussian(self._motion_components(features, num_frames, train=train))

    def _audio_components(self, waveform, num_samples, *, train) -> Gaussian:
        speech = self.speech_encoder(waveform, num_samples, train=train)
        limit = self.audio_tower.max_length
        return self.audio_tower(speech.values[:, :limit], speech.mask[:, :limit], train=train)

    def _motion_components(self, features, num_frames, *, train) -> Gaussian:
        mask = length_mask(num_frames, features.shape[1])
        return self.motion_tower(self.motion_map(features), mask, train=train)

    def match_parameters(self) -> tuple[Array, Array]:
        """Scale and shift of the match logit."""
        return self.scale, self.shift
