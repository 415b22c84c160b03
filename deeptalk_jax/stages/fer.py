"""Stage FER: emotion of single frames (SPEC section 1)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from data_pipeline.statistics import emotion_frame_counts
from deeptalk_jax.losses.classification import balanced_class_weights, cross_entropy
from deeptalk_jax.losses.reduce import masked_mean
from deeptalk_jax.models.masks import length_mask
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.stages.builders import build_fer, init_fer
from deeptalk_jax.types import Array

PyTree = Any


def perturb(
    motion: Float[Array, "b t d"], key: KeyArray, *, sample_rate: float, entry_rate: float, noise_std: float
) -> Float[Array, "b t d"]:
    """Adds N(0, noise_std) to a share of the entries of a share of the frames."""
    sample_key, entry_key, noise_key = jax.random.split(key, 3)
    chosen = jax.random.bernoulli(sample_key, sample_rate, (*motion.shape[:-1], 1))
    entries = jax.random.bernoulli(entry_key, entry_rate, motion.shape)
    noise = noise_std * jax.random.normal(noise_key, motion.shape)
    return motion + jnp.where(chosen & entries, noise, 0.0)


class FERStage(Stage):
    """Trains the frame classifier with class-weighted cross-entropy."""

    name = "fer"

    def __init__(self, config):
        super().__init__(config)
        self.model = build_fer(config)

    def init(self, key: KeyArray) -> PyTree:
        """Variables before training."""
        return init_fer(self.model, key)

    def frozen_variables(self) -> PyTree:
        """Weight of every class, from the training split."""
        counts = emotion_frame_counts(self.config.data.data_dir, self.config.data.dataset, "train")
        return {"class_weights": balanced_class_weights(counts)}

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Cross-entropy over valid frames."""
        noise_key, dropout_key = jax.random.split(key)
        motion = perturb(batch["motion"], noise_key, **self.config.augmentation)
        logits, model_state = self.model.apply(
            merged(params, model_state),
            motion,
            train=True,
            rngs={"dropout": dropout_key},
            mutable=list(model_state),
        )
        labels = jnp.broadcast_to(batch["emotion"][:, None], logits.shape[:2])
        mask = length_mask(batch["num_frames"], logits.shape[1])
        weights = jnp.asarray(frozen["class_weights"])[labels]
        loss = masked_mean(cross_entropy(logits, labels), mask, weights)
        correct = masked_mean(jnp.argmax(logits, -1) == labels, mask)
        return loss, (model_state, {"cross_entropy": loss, "accuracy": correct})

    def evaluate(self, variables: PyTree, split: str) -> dict[str, float]:
        """Accuracy over frames, its mean over classes, and accuracy of each clip's summed logits."""
        predict = jax.jit(self.model.apply)
        num_classes = self.config.model.num_classes
        confusion, clips_right, clips = np.zeros((num_classes, num_classes)), 0, 0
        for batch in self.clips(split):
            logits = np.asarray(predict(variables, batch["motion"]))
            for row, num_frames in enumerate(batch["num_frames"]):
                if num_frames == 0:
                    continue
                label, frames = batch["emotion"][row], logits[row, :num_frames]
                np.add.at(confusion[label], frames.argmax(-1), 1)
                clips_right += int(frames.sum(0).argmax() == label)
                clips += 1
        recall = np.diag(confusion) / np.maximum(confusion.sum(1), 1)
        return {
            "frame_accuracy": float(np.trace(confusion) / confusion.sum()),
            "class_mean_accuracy": float(recall[confusion.sum(1) > 0].mean()),
            "clip_accuracy": clips_right / clips,
        }
