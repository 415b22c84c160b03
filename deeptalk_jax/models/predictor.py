"""DEEPTalk's index predictor: from speech, identity and emotion to the logits of all codes in parallel.

It is the part of the generator that stage 1 trains (docs/method.md, section 4).
"""

import einops
import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from deeptalk_jax.models.attention_bias import periodic_alibi, symmetric_alibi
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE
from deeptalk_jax.models.transformer import TransformerEncoder
from deeptalk_jax.types import MOTION_RATE_HZ, Array


class CodePredictor(nn.Module):
    """Groups face features to the rate of a codebook and predicts logits over its codes.

    Attributes:
        codebook_size: number of codes to choose from.
        group_frames: motion frames per code.
        dim: width of the transformer.
        mlp_dim: feed-forward width.
        num_layers: transformer layers.
        num_heads: attention heads.
        dtype: compute type; logits are float32.
    """

    codebook_size: int
    group_frames: int
    dim: int = 256
    mlp_dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "b t d"],
        condition: Float[Array, "b k e"] | None = None,
        *,
        mask: Bool[Array, "b k"] | None = None,
    ) -> Float[Array, "b k n"]:
        """Returns logits.

        Args:
            features: face features, one per motion frame.
            condition: further features at the rate of the codes, concatenated with the grouped face features.
            mask: true for valid codes of a padded batch.
        """
        # [b, t, d] -> [b, k, g*d]
        x = einops.rearrange(features, "b (k g) d -> b k (g d)", g=self.group_frames)
        if condition is not None:
            x = jnp.concatenate([x, condition.astype(x.dtype)], axis=-1)
        x = nn.Dense(self.dim, dtype=self.dtype, name="pre_linear")(x)  # [b, k, dim]
        x = TransformerEncoder(
            self.num_layers, self.num_heads, self.mlp_dim, "gelu", 0.0, self.dtype, name="transformer"
        )(x, bias=symmetric_alibi(self.num_heads, x.shape[1]), mask=mask)
        # float32, because small differences decide the choice among hundreds of codes.
        return nn.Dense(self.codebook_size, dtype=jnp.float32, name="post_linear")(x)


class IndexPredictor(nn.Module):
    """Speech encoder, face feature extractor and both code predictors; the defaults are the published sizes.

    Attributes:
        speech_encoder: module `(waveform, num_samples, num_frames=, train=) -> SpeechFeatures` at 25 Hz.
        num_identities: length of the identity vector.
        feature_dim: size of content, emotion, style and face features.
        mlp_dim: feed-forward width of the face feature extractor, which has width 2 * feature_dim.
        predictor_dim: width and feed-forward width of both code predictors.
        num_layers: transformer layers of each code predictor.
        num_heads: attention heads.
        codebook_size_top: number of top codes.
        codebook_size_bottom: number of bottom codes.
        dropout_rate: dropout probability of the face feature extractor; the code predictors have no dropout.
        num_visemes: classes of the viseme head, which is used in training only; 0 means no head.
        dtype: compute type of all parts except the speech encoder.
    """

    speech_encoder: nn.Module
    num_identities: int = 32
    feature_dim: int = 128
    mlp_dim: int = 256
    predictor_dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    codebook_size_top: int = 256
    codebook_size_bottom: int = 256
    dropout_rate: float = 0.1
    num_visemes: int = 0
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Creates the parts under the names of docs/method.md, section 4."""
        if self.num_visemes:
            self.viseme_map = nn.Dense(self.num_visemes)
        self.content_map = nn.Dense(self.feature_dim, dtype=self.dtype)
        self.emotion_map = nn.Dense(self.feature_dim, dtype=self.dtype)
        self.style_map = nn.Dense(self.feature_dim, dtype=self.dtype)
        self.face_transformer = TransformerEncoder(
            1, self.num_heads, self.mlp_dim, "gelu", self.dropout_rate, self.dtype
        )
        self.face_map = nn.Dense(self.feature_dim, dtype=self.dtype)

        def predictor(codebook_size, group_frames):
            return CodePredictor(
                codebook_size,
                group_frames,
                self.predictor_dim,
                self.predictor_dim,
                self.num_layers,
                self.num_heads,
                self.dtype,
            )

        self.predictor_top = predictor(self.codebook_size_top, FRAMES_PER_TOP_CODE)
        self.predictor_bottom = predictor(self.codebook_size_bottom, FRAMES_PER_BOTTOM_CODE)

    def face_features(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        emotion: Float[Array, "b d"] | Float[Array, "b t d"],
        identity: Float[Array, "b i"],
        *,
        num_frames: int,
        mask: Bool[Array, "b t"] | None = None,
        train: bool = False,
        encoded: Float[Array, "b t f"] | None = None,
    ) -> Float[Array, "b t d"]:
        """Returns face features, one per motion frame.

        Args:
            waveform: samples at 16 kHz in [-1, 1].
            num_samples: number of valid samples of every clip.
            emotion: unit vector from DEE's audio tower, one per clip or one per frame.
            identity: one-hot vector, or any convex mixture of identities.
            num_frames: static number of output frames.
            mask: true for valid frames of a padded batch.
            train: whether dropout is applied (stream `dropout`).
            encoded: output of `encode` for this waveform, if it has been computed before.

        Raises:
            ValueError: `identity` does not have `num_identities` entries, or `emotion` has vectors for another number
                of frames.
        """
        if identity.shape[-1] != self.num_identities:
            raise ValueError(f"identity has {identity.shape[-1]} entries, expected {self.num_identities}")
        if emotion.ndim == 3 and emotion.shape[1] != num_frames:
            raise ValueError(f"emotion has vectors for {emotion.shape[1]} frames, expected {num_frames}")
        if encoded is None:
            encoded = self.encode(waveform, num_samples, num_frames=num_frames, train=train)
        if self.num_visemes and self.is_initializing():
            self.viseme_map(encoded)
        content = self.content_map(encoded)  # [b, t, d]
        style = self._style(emotion, identity)  # [b, d] or [b, t, d]
        if style.ndim == 2:
            style = jnp.broadcast_to(style[:, None, :], content.shape)
        bias = periodic_alibi(self.num_heads, num_frames, period=MOTION_RATE_HZ)
        joint = jnp.concatenate([content, style], axis=-1)  # [b, t, 2d]
        return self.face_map(self.face_transformer(joint, bias=bias, mask=mask, train=train))

    def encode(
        self,
        waveform: Float[Array, "b s"],
        num_samples: Int[Array, " b"],
        *,
        num_frames: int,
        train: bool = False,
    ) -> Float[Array, "b t f"]:
        """Returns the features of the speech encoder, one per motion frame; arguments as in `face_features`."""
        return self.speech_encoder(waveform, num_samples, num_frames=num_frames, train=train).values

    def viseme_logits(self, encoded: Float[Array, "b t f"]) -> Float[Array, "b t c"]:
        """Returns the logits of the viseme of every frame, which training compares with labels."""
        return self.viseme_map(encoded)

    def _style(
        self, emotion: Float[Array, "b *t d"], identity: Float[Array, "b i"]
    ) -> Float[Array, "b *t d"]:
        """Maps emotion and identity to a style vector, per clip or per frame as `emotion` is."""
        mapped = self.emotion_map(emotion)
        if mapped.ndim == 3:
            identity = jnp.broadcast_to(identity[:, None, :], (*mapped.shape[:2], identity.shape[-1]))
        return self.style_map(jnp.concatenate([mapped, identity.astype(mapped.dtype)], axis=-1))

    def logits_top(
        self, face_features: Float[Array, "b t d"], *, mask: Bool[Array, "b k"] | None = None
    ) -> Float[Array, "b k n"]:
        """Returns the logits of the top codes."""
        return self.predictor_top(face_features, mask=mask)

    def logits_bottom(
        self,
        face_features: Float[Array, "b t d"],
        decoded_top: Float[Array, "b k d"],
        *,
        mask: Bool[Array, "b k"] | None = None,
    ) -> Float[Array, "b k n"]:
        """Returns the logits of the bottom codes, given the chosen top codes as decoded by `MotionPrior.decode_top`."""
        return self.predictor_bottom(face_features, decoded_top, mask=mask)
