"""FER: classifies the emotion of one frame of FLAME motion and extracts features for DEE's motion tower.

Implements docs/method.md, section 1. The published feature path skips batch normalisation (section 9); the default
here keeps it.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.batch_norm import BatchNorm
from deeptalk_jax.models.dropout import Dropout
from deeptalk_jax.types import Array

FEATURE_PATHS = ("published", "normalised")


class FER(nn.Module):
    """MLP over single frames.

    Attributes:
        hidden_dims: widths of the hidden layers; the published sizes.
        feature_layer: index of the hidden layer that gives the feature, before its activation.
        num_classes: number of emotions.
        dropout_rate: dropout probability after every hidden activation.
        feature_path: "published" skips the batch norms in the feature path, as in the training of the published DEE;
            "normalised" keeps them, for models trained here.
        dtype: compute type of the hidden layers; logits and features are float32.
    """

    hidden_dims: tuple[int, ...] = (256, 512, 1024, 512, 256, 128, 64)
    feature_layer: int = 5
    num_classes: int = 8
    dropout_rate: float = 0.3
    feature_path: str = "normalised"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Creates layers `dense_i`, `norm_i` and `classifier`."""
        if self.feature_path not in FEATURE_PATHS:
            raise ConfigError(
                f"model.feature_path={self.feature_path!r}: expected one of {', '.join(FEATURE_PATHS)}"
            )
        if not 0 <= self.feature_layer < len(self.hidden_dims):
            raise ConfigError(
                f"model.feature_layer={self.feature_layer}: expected the index of one of the {len(self.hidden_dims)} "
                "layers of model.hidden_dims"
            )
        self.dense = [nn.Dense(dim, dtype=self.dtype) for dim in self.hidden_dims]
        self.norm = [BatchNorm() for _ in self.hidden_dims]
        self.dropout = Dropout(self.dropout_rate)
        self.classifier = nn.Dense(self.num_classes, dtype=jnp.float32)

    @property
    def feature_dim(self) -> int:
        """Number of channels of `features`."""
        return self.hidden_dims[self.feature_layer]

    def __call__(self, motion: Float[Array, "... 53"], *, train: bool = False) -> Float[Array, "... c"]:
        """Returns the emotion logits of every frame."""
        x = motion
        # [..., 53] -> [..., 64]
        for dense, norm in zip(self.dense, self.norm, strict=True):
            x = nn.leaky_relu(norm(dense(x), train=train), 0.01)
            x = self.dropout(x, train=train)
        return self.classifier(x)

    def features(self, motion: Float[Array, "... 53"]) -> Float[Array, "... d"]:
        """Returns the feature of every frame in evaluation mode, differentiable with respect to `motion`."""
        x = motion
        # [..., 53] -> [..., 128]
        for index in range(self.feature_layer):
            x = nn.leaky_relu(self._linear(index, x), 0.01)
        return self._linear(self.feature_layer, x).astype(jnp.float32)

    def _linear(self, index: int, x: Float[Array, "... d"]) -> Float[Array, "... e"]:
        """Applies layer `index` without its activation, with its batch norm if the feature path keeps it."""
        x = self.dense[index](x)
        return x if self.feature_path == "published" else self.norm[index](x)
