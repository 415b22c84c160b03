"""Stage DEE: trains the emotion space of speech and motion (docs/method.md, section 2)."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array as KeyArray

from deeptalk_jax.assembly.build import build_dee, build_fer, init_dee
from deeptalk_jax.evaluation.emotion_space import embed_clips, evaluate_space
from deeptalk_jax.evaluation.result import Evaluation
from deeptalk_jax.losses.reduce import weighted_total
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.stages.dee_statistics import clip_emotions, emotion_centroids
from deeptalk_jax.stages.dee_terms import contrastive_terms, match_labels, matching_pairs
from deeptalk_jax.types import Gaussian

PyTree = Any


class DEEStage(Stage):
    """Trains both towers with a contrastive loss on the features of FER, which is not trained."""

    name = "dee"

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        self.model = build_dee(config)
        self.fer = build_fer(self.upstream["fer"].config)

    def init(self, key: KeyArray) -> PyTree:
        """Returns initial variables of DEE."""
        return init_dee(self.model, self.fer.feature_dim, key)

    def pretrained_params(self) -> PyTree:
        """Returns imported weights of the speech encoder."""
        return self.pretrained_speech()

    def statistics(self, variables: PyTree) -> dict[str, np.ndarray]:
        """Measures the centroid of each emotion, which inference needs for emotions that are given by name."""
        return emotion_centroids(clip_emotions(self.model, variables, self.config.data))._asdict()

    def components(self, variables, constants, batch, *, train=False, rngs=None) -> tuple[Gaussian, Gaussian]:
        """Returns the mixtures `[b, k, d]` of the speech and of the motion of a batch."""
        features = self.fer.apply(constants["fer"], batch["motion"], method=FER.features)  # [b, t, d]
        return self.model.apply(
            variables,
            batch["audio"],
            batch["num_samples"],
            features,
            batch["num_frames"],
            train=train,
            rngs=rngs,
            method=DEE.components,
        )

    def loss_fn(self, params, model_state, constants, batch, step, key):
        """Computes the contrastive loss over all speech-motion pairs of the global batch."""
        variables = merged(params, model_state)
        audio, motion = self.components(variables, constants, batch, train=True, rngs={"dropout": key})
        scale, shift = params["scale"], params["shift"]
        labels = match_labels(self.config.loss.matching, batch["emotion"])
        terms, weights = contrastive_terms(
            self.config.loss, audio, motion, labels, scale, shift, jax.random.fold_in(key, 0)
        )
        return weighted_total(terms, weights), (model_state, {**terms, "scale": scale, "shift": shift})

    def evaluate(self, variables: PyTree, split: str) -> Evaluation:
        """Measures retrieval, calibration and the meaning of the variance on all clips of a split."""
        embeddings = embed_clips(self.components, variables, self.constants(), self.clips(split))
        matches = np.asarray(matching_pairs(self.config.loss.matching, embeddings.emotion))
        scale, shift = (variables["params"][name] for name in ("scale", "shift"))
        return evaluate_space(
            self.config.loss, embeddings, matches, scale, shift, self.config.data.batch_size
        )
