"""Stage FER: trains the classifier of the emotion of single motion frames (docs/method.md, section 1)."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from data_pipeline.frames import (
    FrameKeys,
    Frames,
    frame_counts,
    frame_loader,
    frames_in_order,
    read_frames,
    split_file,
)
from data_pipeline.statistics import emotion_frame_counts
from deeptalk_jax.assembly.build import build_fer, init_fer
from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.errors import UserError
from deeptalk_jax.evaluation.charts import draw_confusions
from deeptalk_jax.evaluation.result import Evaluation, Panel, Table
from deeptalk_jax.losses.classification import balanced_class_weights, cross_entropy
from deeptalk_jax.losses.reduce import masked_mean
from deeptalk_jax.masks import length_mask
from deeptalk_jax.metrics.classification import accuracy, class_accuracy, confusion_matrix
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.types import EMOTIONS, MOTION_DIM, Array

PyTree = Any

_FRAMES_AT_ONCE = 1024  # batch size of the evaluation on a file of frames


def perturb(
    motion: Float[Array, "b t d"], key: KeyArray, *, sample_rate: float, entry_rate: float, noise_std: float
) -> Float[Array, "b t d"]:
    """Adds Gaussian noise to random entries of random frames.

    Args:
        motion: motion frames.
        key: random key.
        sample_rate: probability that a frame gets noise.
        entry_rate: probability that an entry of such a frame gets noise.
        noise_std: standard deviation of the noise, in expression coefficients and radians.
    """
    sample_key, entry_key, noise_key = jax.random.split(key, 3)
    chosen = draw_rows(partial(jax.random.bernoulli, sample_key, sample_rate), (*motion.shape[:-1], 1))
    entries = draw_rows(partial(jax.random.bernoulli, entry_key, entry_rate), motion.shape)
    noise = noise_std * draw_rows(partial(jax.random.normal, noise_key), motion.shape)
    return motion + jnp.where(chosen & entries, noise, 0.0)


class FERStage(Stage):
    """Trains the frame classifier with class-weighted cross-entropy.

    Frames come from the windows of a corpus, or from a file of labelled frames (`data.frames_file`).
    """

    name = "fer"

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        self.model = build_fer(config)

    def init(self, key: KeyArray) -> PyTree:
        """Returns initial variables of FER."""
        return init_fer(self.model, key)

    @cached_property
    def _training_frames(self) -> Frames:
        return self._frames("train")

    def _frames(self, split: str) -> Frames:
        data = self.config.data
        return read_frames(split_file(data.frames_file, split), FrameKeys(**data.frames_keys))

    def train_batches(
        self,
        *,
        num_processes: int,
        process_index: int,
        window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Returns batches of random windows of the corpus, or of random frames of the file."""
        data = self.config.data
        processes = {"num_processes": num_processes, "process_index": process_index}
        if not data.frames_file:
            return super().train_batches(**processes, window_features=window_features)
        return frame_loader(
            self._training_frames,
            batch_size=data.batch_size,
            seed=self.config.seed,
            num_threads=data.num_threads,
            **processes,
        )

    def validation_batches(
        self, num_batches: int, *, num_processes: int, process_index: int
    ) -> Sequence[dict[str, np.ndarray]]:
        """Returns batches of fixed windows of the corpus, or of fixed frames of the file."""
        data = self.config.data
        processes = {"num_processes": num_processes, "process_index": process_index}
        if not data.frames_file:
            return super().validation_batches(num_batches, **processes)
        batches = frame_loader(
            self._frames("validation"),
            batch_size=data.batch_size,
            seed=self.config.seed,
            num_threads=0,
            **processes,
        )
        return list(itertools.islice(batches, num_batches))

    def describe_data(self) -> str:
        """Returns the file of the training frames, or the size of the training split."""
        pattern = self.config.data.frames_file
        return f"frames of {split_file(pattern, 'train')}" if pattern else super().describe_data()

    def batch_shapes(self, batch_size: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a global training batch; batches of a file have no audio."""
        shapes = super().batch_shapes(batch_size)
        if not self.config.data.frames_file:
            return shapes
        rows = shapes["emotion"].shape[0]
        motion = jax.ShapeDtypeStruct((rows, 1, MOTION_DIM), np.float32)
        return {"motion": motion, "emotion": shapes["emotion"], "num_frames": shapes["num_frames"]}

    def constants(self) -> PyTree:
        """Returns the weight of each class, from the numbers of training frames.

        Raises:
            UserError: an emotion has no training frame.
        """
        data = self.config.data
        if data.frames_file:
            counts = frame_counts(self._training_frames)
        else:
            counts = emotion_frame_counts(data.data_dir, data.dataset, "train")
        missing = [emotion for emotion, count in zip(EMOTIONS, counts, strict=True) if not count]
        if missing:
            source = data.frames_file or data.dataset
            raise UserError(
                f"{source}: no training frame shows {', '.join(missing)}; every emotion needs one"
            )
        return {"class_weights": balanced_class_weights(counts)}

    def loss_fn(self, params, model_state, constants, batch, step, key):
        """Computes the class-weighted cross-entropy over the valid frames."""
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
        weights = jnp.asarray(constants["class_weights"])[labels]
        loss = masked_mean(cross_entropy(logits, labels), mask, weights)
        correct = masked_mean(jnp.argmax(logits, -1) == labels, mask)
        return loss, (model_state, {"cross_entropy": loss, "accuracy": correct})

    def evaluate(self, variables: PyTree, split: str) -> Evaluation:
        """Measures the accuracy on frames, for each class, and on clips by the sum of the logits of their frames."""
        of_file = bool(self.config.data.frames_file)
        batches = frames_in_order(self._frames(split), _FRAMES_AT_ONCE) if of_file else self.clips(split)
        predict = jax.jit(self.model.apply)
        # Counts of frames and of clips, [2, true, predicted].
        confusion = np.zeros((2, len(EMOTIONS), len(EMOTIONS)), int)
        for batch in batches:
            logits, valid = np.asarray(predict(variables, batch["motion"])), batch["valid"]
            logits, num_frames, labels = (x[valid] for x in (logits, batch["num_frames"], batch["emotion"]))
            mask = np.arange(logits.shape[1]) < num_frames[:, None]
            of_clips = np.sum(logits * mask[..., None], axis=1).argmax(-1)
            of_frames, frame_labels = logits.argmax(-1)[mask], np.repeat(labels, num_frames)
            confusion[0] += confusion_matrix(frame_labels, of_frames, len(EMOTIONS))
            confusion[1] += confusion_matrix(labels, of_clips, len(EMOTIONS))
        names = ("frames",) if of_file else ("frames", "clips")  # a file has no clips
        return _evaluation(dict(zip(names, confusion, strict=False)))


def _evaluation(confusions: dict[str, np.ndarray]) -> Evaluation:
    """Computes metrics and charts from confusion matrices of frames and, for a corpus, of clips."""
    recall = class_accuracy(confusions["frames"])
    present = np.isfinite(recall)
    metrics = {
        "frame_accuracy": accuracy(confusions["frames"]),
        "class_mean_accuracy": float(recall[present].mean()),
    }
    if "clips" in confusions:
        metrics["clip_accuracy"] = accuracy(confusions["clips"])
    by_class = dict(zip(EMOTIONS, recall.tolist(), strict=True))
    metrics |= {f"{emotion}_accuracy": value for emotion, value in by_class.items() if np.isfinite(value)}

    def draw() -> list[Panel]:
        columns = [class_accuracy(confusion) for confusion in confusions.values()]
        rows = [
            (emotion, *(None if np.isnan(value) else float(value) for value in values))
            for emotion, *values in zip(EMOTIONS, *columns, strict=True)
        ]
        titles = {f"{name}, of {matrix.sum()}": matrix for name, matrix in confusions.items()}
        return [
            Panel(
                "confusion",
                "Predicted emotion",
                "Rows: true emotion; columns: predicted emotion. A clip is predicted from the sum of its frames' "
                "logits. Faint expressions and the start and end of a clip look neutral.",
                draw_confusions(titles, EMOTIONS, "predicted emotion"),
                Table(("accuracy", *confusions), rows),
            )
        ]

    return Evaluation(metrics, {f"confusion_{name}": m.tolist() for name, m in confusions.items()}, draw)
