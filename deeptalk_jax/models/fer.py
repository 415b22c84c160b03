"""FER: emotion of one frame of FLAME motion, and the features that DEE's motion tower reads (SPEC section 1)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.types import Array

FEATURE_PATHS = ("published", "normalised")


class FER(nn.Module):
    """MLP over single frames.

    Attributes:
        hidden_dims: widths of the hidden layers.
        feature_layer: index of the hidden layer whose values before the activation are the feature.
        num_classes: emotions.
        dropout_rate: after every hidden activation.
        feature_path: "published" leaves the batch norms out of the feature path, as the published DEE was
            trained; "normalised" keeps them, for models trained here.
        dtype: compute type of the hidden layers; logits and features are float32.
    """

    hidden_dims: tuple[int, ...] = (256, 512, 1024, 512, 256, 128, 64)
    feature_layer: int = 5
    num_classes: int = 8
    dropout_rate: float = 0.3
    feature_path: str = "normalised"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Layers `dense_i`, `norm_i` and `classifier`."""
        if self.feature_path not in FEATURE_PATHS:
            raise ValueError(f"feature_path={self.feature_path!r} is not one of {FEATURE_PATHS}")
        self.dense = [nn.Dense(dim, dtype=self.dtype) for dim in self.hidden_dims]
        self.norm = [BatchNorm() for _ in self.hidden_dims]
        self.dropout = Dropout(self.dropout_rate)
        self.classifier = nn.Dense(self.num_classes, dtype=jnp.float32)

    @property
    def feature_dim(self) -> int:
        """Channels of `features`."""
        return self.hidden_dims[self.feature_layer]

    def __call__(self, motion: Float[Array, "... 53"], *, train: bool = False) -> Float[Array, "... c"]:
        """Emotion logits of every frame."""
        x = motion
        for dense, norm in zip(self.dense, self.norm, strict=True):
            x = nn.leaky_relu(norm(dense(x), train=train), 0.01)
            x = self.dropout(x, train=train)
        return self.classifier(x)

    def features(self, motion: Float[Array, "... 53"]) -> Float[Array, "... d"]:
        """Feature of every frame, in evaluation mode, differentiable in `motion`."""
        x = motion
        for index in range(self.feature_layer):
            x = nn.leaky_relu(self._linear(index, x), 0.01)
        return self._linear(self.feature_layer, x).astype(jnp.float32)

    def _linear(self, index: int, x: Array) -> Array:
        """Layer `index` before its activation, with its batch norm where the feature path keeps it."""
        x = self.dense[index](x)
        return x if self.feature_path == "published" else self.norm[index](x)
