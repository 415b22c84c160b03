"""Stage lip reader: the mouth shape class of every frame from pictures of the mouth.

Departure: the published loss reads lips with a network trained on LRS3, whose weights are not free to embed. This one
is trained on renders of the corpus, and gives the same kind of features (SPEC section 4).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from data_pipeline.statistics import viseme_frame_counts
from deeptalk_jax.assembly.build import build_lip_reader, init_lip_reader
from deeptalk_jax.collectives import draw_rows, rows_apart
from deeptalk_jax.evaluation.page import Evaluation
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.classification import cross_entropy
from deeptalk_jax.losses.reduce import masked_mean
from deeptalk_jax.models.visual_speech import LipReader
from deeptalk_jax.rendering.mouth import mouth_renderer
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.types import Array

PyTree = Any


class LipReaderStage(Stage):
    """Trains the lip reader with cross-entropy; the pictures are rendered in the step."""

    name = "lip_reader"

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        self.model = build_lip_reader(config)
        self.renderer = mouth_renderer(load_head(config.head), config.model.crop_size)

    def init(self, key: KeyArray) -> PyTree:
        """Variables before training."""
        return init_lip_reader(self.model, self.config.model.crop_size, key)

    def constants(self) -> PyTree:
        """Share of every class in the training split; also fails early where there are no labels."""
        data = self.config.data
        counts = viseme_frame_counts(data.data_dir, data.dataset, "train")
        return {"class_shares": (counts / counts.sum()).astype(np.float32)}

    def features(self, variables: PyTree, motion: Float[Array, "b t 53"]) -> Float[Array, "b t d"]:
        """Features of the rendered mouth, in evaluation mode, differentiable in the motion."""
        return self.model.apply(variables, self.renderer.from_motion(motion), method=LipReader.features)

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Cross-entropy over labelled frames."""
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
        """Accuracy over frames and its mean over classes, beside those of guessing.

        `chance` draws a class at random, `majority` always takes the most frequent one of the training split.
        """

        @jax.jit
        def predict(variables, motion):
            return jnp.argmax(self.model.apply(variables, self.renderer.from_motion(motion)), axis=-1)

        shares = self.constants()["class_shares"]
        confusion = np.zeros((len(shares), len(shares)))
        for batch in self.clips(split):
            known = batch["viseme"] >= 0
            guess = np.asarray(predict(variables, batch["motion"]))
            np.add.at(confusion, (batch["viseme"][known], guess[known]), 1)
        counts = confusion.sum(axis=1)
        recall = np.diag(confusion) / np.maximum(counts, 1)
        metrics = {
            "frame_accuracy": float(np.trace(confusion) / counts.sum()),
            "class_mean_accuracy": float(recall[counts > 0].mean()),
            "chance": 1.0 / len(shares),
            "majority": float(counts[shares.argmax()] / counts.sum()),
            "num_frames": int(counts.sum()),
        }
        return Evaluation(metrics, {}, tuple)
