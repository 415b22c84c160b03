"""Stage lip reader: trains a classifier of the mouth shape in rendered pictures of the mouth.

Its features replace those of the published lip-reading network in the loss of stage 2 (docs/method.md, section 4.2).
The published network was trained on LRS3, and its weights cannot be distributed with this repository.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Int

from data_pipeline.statistics import viseme_frame_counts
from deeptalk_jax.assembly.build import build_lip_reader, init_lip_reader
from deeptalk_jax.collectives import draw_rows, rows_apart
from deeptalk_jax.evaluation.result import Evaluation
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.classification import cross_entropy
from deeptalk_jax.losses.reduce import masked_mean
from deeptalk_jax.rendering.mouth import mouth_renderer
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.types import VISEME_CLASSES

PyTree = Any


class LipReaderStage(Stage):
    """Trains the lip reader with cross-entropy; the training step renders the pictures."""

    name = "lip_reader"
    uses_masks = True

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        self.model = build_lip_reader(config)
        self.renderer = mouth_renderer(load_head(config.head), config.model.crop_size)

    def init(self, key: KeyArray) -> PyTree:
        """Returns initial variables of the lip reader."""
        return init_lip_reader(self.model, self.config.model.crop_size, key)

    def train_batches(self, **arguments: Any) -> Iterator[dict[str, np.ndarray]]:
        """Returns batches of random windows; a corpus without mouth shape labels is refused here."""
        self._training_frame_counts()
        return super().train_batches(**arguments)

    def _training_frame_counts(self) -> Int[np.ndarray, " c"]:
        """Returns the number of training frames of each class."""
        data = self.config.data
        return viseme_frame_counts(data.data_dir, data.dataset, "train")

    def loss_fn(self, params, model_state, constants, batch, step, key):
        """Computes the cross-entropy over the labelled frames."""
        pictures = jax.lax.stop_gradient(rows_apart(self.renderer.from_motion)(batch["motion"]))
        noise = self.config.augmentation.noise_std * draw_rows(
            partial(jax.random.normal, key), pictures.shape
        )
        logits, model_state = self.model.apply(
            merged(params, model_state), pictures + noise, train=True, mutable=list(model_state)
        )
        labels = batch["viseme"]
        known = labels >= 0
        loss = masked_mean(cross_entropy(logits, jnp.maximum(labels, 0)), known)
        correct = masked_mean(jnp.argmax(logits, axis=-1) == labels, known)
        return loss, (model_state, {"cross_entropy": loss, "accuracy": correct})

    def evaluate(self, variables: PyTree, split: str) -> Evaluation:
        """Measures the accuracy on labelled frames and its mean over classes.

        Two references need no network: `chance` is the accuracy of a random class, `majority` that of the class that
        is most frequent in the training split.
        """

        @jax.jit
        def predict(variables, motion):
            return jnp.argmax(self.model.apply(variables, self.renderer.from_motion(motion)), axis=-1)

        most_frequent = self._training_frame_counts().argmax()
        confusion = np.zeros((len(VISEME_CLASSES), len(VISEME_CLASSES)))  # [true, predicted]
        for batch in self.clips(split):
            known = batch["viseme"] >= 0
            guess = np.asarray(predict(variables, batch["motion"]))
            np.add.at(confusion, (batch["viseme"][known], guess[known]), 1)
        counts = confusion.sum(axis=1)
        recall = np.diag(confusion) / np.maximum(counts, 1)
        metrics = {
            "frame_accuracy": float(np.trace(confusion) / counts.sum()),
            "class_mean_accuracy": float(recall[counts > 0].mean()),
            "chance": 1.0 / len(VISEME_CLASSES),
            "majority": float(counts[most_frequent] / counts.sum()),
            "num_frames": int(counts.sum()),
        }
        return Evaluation(metrics, {}, tuple)
