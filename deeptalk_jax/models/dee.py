"""DEE: dynamic emotion embedding, the joint emotion space of speech and motion (DEEPTalk, section 3.1).

Two towers map speech and facial motion to diagonal Gaussians. The means are unit vectors; the log-variances are
unconstrained and measure how ambiguous the emotion of a clip is. docs/method.md, section 2, has the equations.
"""

import einops
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.models.gpo import Pooling
from deeptalk_jax.models.positions import sinusoidal_positions
from deeptalk_jax.models.transformer import TransformerEncoder
from deeptalk_jax.types import Array, Gaussian


def unit_length(x: Float[Array, "... d"]) -> Float[Array, "... d"]:
    """Returns `x / (||x|| + 1e-8)`, the published normalisation, with a finite gradient at zero."""
    squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    norm = jnp.where(squared > 0.0, jnp.sqrt(jnp.where(squared > 0.0, squared, 1.0)), 0.0)
    return x / (norm + 1e-8)


def single_gaussian(components: Gaussian) -> Gaussian:
    """Reduces mixtures `[b, k, d]` of equally weighted Gaussians to one Gaussian `[b, d]` each.

    A single component is returned unchanged. Otherwise the mean is the mean of the mixture scaled to unit length, and
    the variance is the second moment of the mixture about that point, which keeps the expected squared distance of a
    sample from the mean.
    """
    if components.mean.shape[1] == 1:
        return Gaussian(*(moment[:, 0] for moment in components))
    mean = unit_length(jnp.mean(components.mean, axis=1))
    spread = jnp.exp(components.log_variance) + jnp.square(components.mean - mean[:, None])
    return Gaussian(mean, jnp.log(jnp.mean(spread, axis=1)))


class GaussianHead(nn.Module):
    """Maps a sequence to a mixture of Gaussians.

    Each of the two moments (mean and log-variance) has its own transformer layer, linear map and pooling over time.

    Attributes:
        embedding_dim: size d of the emotion space.
        num_heads: number of attention heads.
        mlp_dim: width of the feed-forward layer.
        pooling: pooling over time, a key of `gpo.POOLINGS`.
        dropout_rate: dropout probability in the transformer layers.
        initial_log_variance: initial bias of the log-variance map.
        num_components: number of Gaussians k in the mixture.
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
        """Returns the equally weighted components `[b, k, d]` of every clip."""
        width = self.num_components * self.embedding_dim

        def moment(name, bias_init):
            encoded = TransformerEncoder(
                num_layers=1,
                num_heads=self.num_heads,
                mlp_dim=self.mlp_dim,
                activation="relu",
                dropout_rate=self.dropout_rate,
                dtype=self.dtype,
                name=f"{name}_encoder",
            )(x, mask=mask, train=train)  # [b, s, d']
            mapped = nn.Dense(width, dtype=self.dtype, bias_init=bias_init, name=f"{name}_map")(encoded)
            # float32, because distances between means are differences of nearly equal numbers.
            pooled = Pooling(self.pooling, name=f"{name}_pool")(mapped.astype(jnp.float32), mask)
            return einops.rearrange(pooled, "b (k d) -> b k d", k=self.num_components)

        mean = moment("mean", nn.initializers.zeros)
        log_variance = moment("log_variance", nn.initializers.constant(self.initial_log_variance))
        return Gaussian(unit_length(mean), log_variance)


class Tower(nn.Module):
    """Positions, transformer encoder and `GaussianHead`: the layers that both towers have.

    Attributes:
        num_layers: number of transformer layers in front of the head.
        num_heads: number of attention heads.
        mlp_dim: width of the feed-forward layers.
        max_length: longest input sequence, in positions.
        embedding_dim: see `GaussianHead`.
        pooling: see `GaussianHead`.
        dropout_rate: dropout probability of the positions and in the transformer layers.
        initial_log_variance: see `GaussianHead`.
        num_components: see `GaussianHead`.
        dtype: compute type of the layers; moments are float32.
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
        """Returns the components `[b, k, d]` of every clip; `mask` is true at valid positions.

        Raises:
            ValueError: the sequence is longer than `max_length`.
        """
        length, dim = x.shape[1:]
        if length > self.max_length:
            raise ValueError(f"sequence of {length} positions is longer than max_length={self.max_length}")
        x = x.astype(self.dtype) + jnp.asarray(sinusoidal_positions(length, dim), self.dtype)[None]
        x = Dropout(self.dropout_rate)(x, train=train)
        x = TransformerEncoder(
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            activation="relu",
            dropout_rate=self.dropout_rate,
            dtype=self.dtype,
            name="encoder",
        )(x, mask=mask, train=train)
        return GaussianHead(
            embedding_dim=self.embedding_dim,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            pooling=self.pooling,
            dropout_rate=self.dropout_rate,
            initial_log_variance=self.initial_log_variance,
            num_components=self.num_components,
            dtype=self.dtype,
            name="head",
        )(x, mask, train=train)


class DEE(nn.Module):
    """Audio tower, motion tower and the two learned scalars of the match probability.

    Attributes:
        speech_encoder: module `(waveform, num_samples, train=) -> SpeechFeatures`.
        audio_layers: number of transformer layers in the audio tower.
        motion_layers: number of transformer layers in the motion tower.
        num_heads: number of attention heads in both towers.
        mlp_dim: width of the feed-forward layers in both towers.
        motion_dim: width of the motion tower; the audio tower is as wide as the speech features.
        embedding_dim: size d of the emotion space.
        pooling: pooling over time in both towers, a key of `gpo.POOLINGS`.
        dropout_rate: dropout probability in both towers.
        initial_log_variance: initial bias of the log-variance maps.
        num_components: number of Gaussians k that describe a clip.
        initial_scale: initial scale of the match logit.
        initial_shift: initial shift of the match logit.
        max_speech_features: longest input of the audio tower, in speech features; later features are cut.
        max_motion_frames: longest input of the motion tower, in frames; longer motion raises an error.
        dtype: compute type of both towers; moments are float32. The speech encoder has a `dtype` of its own.
    """

    speech_encoder: nn.Module
    audio_layers: int = 2
    motion_layers: int = 6
    num_heads: int = 8
    mlp_dim: int = 2048
    motion_dim: int = 512
    embedding_dim: int = 128
    pooling: str = "gpo"
    dropout_rate: float = 0.1
    initial_log_variance: float = 0.0
    num_components: int = 1
    initial_scale: float = 5.0
    initial_shift: float = 5.0
    max_speech_features: int = 500
    max_motion_frames: int = 250
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Creates both towers, the map of FER features, and the scale and shift of the match logit."""
        if self.num_components < 1:
            raise ConfigError(f"num_components={self.num_components}: expected at least 1")
        self.audio_tower = self._tower(self.audio_layers, self.max_speech_features)
        self.motion_tower = self._tower(self.motion_layers, self.max_motion_frames)
        self.motion_map = nn.Dense(self.motion_dim, dtype=self.dtype)
        self.scale = self.param("scale", nn.initializers.constant(self.initial_scale), ())
        self.shift = self.param("shift", nn.initializers.constant(self.initial_shift), ())

    @nn.nowrap
    def _tower(self, num_layers: int, max_length: int) -> Tower:
        return Tower(
            num_layers=num_layers,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            max_length=max_length,
            embedding_dim=self.embedding_dim,
            pooling=self.pooling,
            dropout_rate=self.dropout_rate,
            initial_log_variance=self.initial_log_variance,
            num_components=self.num_components,
            dtype=self.dtype,
        )

    def __call__(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        features: Float[Array, "b t d"],
        num_frames: Int[Array, " b"],
        *,
        train: bool = False,
    ) -> tuple[Gaussian, Gaussian]:
        """Returns the Gaussians `[b, d]` of the speech and of the motion of every clip."""
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
        """Returns the mixtures `[b, k, d]` of the speech and of the motion of every clip.

        Args:
            waveform: 16 kHz, in [-1, 1].
            num_samples: number of valid samples of every clip.
            features: FER features at 25 Hz.
            num_frames: number of valid frames of every clip.
            train: whether dropout is applied.
        """
        audio = self._audio_components(waveform, num_samples, train=train)
        return audio, self._motion_components(features, num_frames, train=train)

    def embed_audio(
        self, waveform: Float[Array, "b s"], num_samples: Int[Array, " b"], *, train: bool = False
    ) -> Gaussian:
        """Returns the Gaussian `[b, d]` of every waveform; see `components`.

        Speech features past `max_speech_features` are ignored.
        """
        return single_gaussian(self._audio_components(waveform, num_samples, train=train))

    def embed_motion(
        self, features: Float[Array, "b t d"], num_frames: Int[Array, " b"], *, train: bool = False
    ) -> Gaussian:
        """Returns the Gaussian `[b, d]` of every sequence of FER features; see `components`.

        Raises:
            ValueError: there are more than `max_motion_frames` frames.
        """
        return single_gaussian(self._motion_components(features, num_frames, train=train))

    def _audio_components(self, waveform, num_samples, *, train) -> Gaussian:
        speech = self.speech_encoder(waveform, num_samples, train=train)
        limit = self.max_speech_features
        return self.audio_tower(speech.values[:, :limit], speech.mask[:, :limit], train=train)

    def _motion_components(self, features, num_frames, *, train) -> Gaussian:
        mask = length_mask(num_frames, features.shape[1])
        return self.motion_tower(self.motion_map(features), mask, train=train)
