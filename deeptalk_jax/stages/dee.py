"""Stage DEE: the emotion space of speech and motion (SPEC section 2)."""

from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Int

from deeptalk_jax.losses.contrastive import (
    closed_form_sampled_distance,
    match_logits,
    match_loss,
    standard_normal_kl,
)
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.metrics.retrieval import label_chance, label_recall, pair_recall
from deeptalk_jax.models.fer import FER
from deeptalk_jax.stages.base import Stage, merged, valid_rows
from deeptalk_jax.stages.builders import build_dee, build_fer, init_dee
from deeptalk_jax.types import Array, Gaussian

PyTree = Any

MATCHINGS = ("diagonal", "same_emotion")


def matching_pairs(kind: str, emotion: Int[Array, " b"]) -> Bool[Array, "b b"]:
    """Which speech-motion pairs of a batch count as matches.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "diagonal":
        return jnp.eye(emotion.shape[0], dtype=bool)
    if kind == "same_emotion":
        return emotion[:, None] == emotion[None, :]
    raise ValueError(f"matching={kind!r} is not one of {MATCHINGS}")


class DEEStage(Stage):
    """Trains both towers with the closed-form sampled distance; FER is frozen."""

    name = "dee"
    upstream_parts = MappingProxyType({"fer": ("fer",)})

    def __init__(self, config):
        super().__init__(config)
        self.model = build_dee(config)
        self.fer = build_fer(self.upstream["fer"].config)

    def init(self, key: KeyArray) -> PyTree:
        """Variables before training."""
        return init_dee(self.model, self.fer.feature_dim, key)

    def embed(self, variables, frozen, batch, *, train=False, rngs=None) -> tuple[Gaussian, Gaussian]:
        """Gaussians of speech and motion of a batch."""
        features = self.fer.apply(frozen["fer"], batch["motion"], method=FER.features)
        return self.model.apply(
            variables,
            batch["audio"],
            batch["num_samples"],
            features,
            batch["num_frames"],
            train=train,
            rngs=rngs,
        )

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Match loss over all pairs of the batch, plus a small divergence from N(0, 1)."""
        audio, motion = self.embed(
            merged(params, model_state), frozen, batch, train=True, rngs={"dropout": key}
        )
        logits = match_logits(closed_form_sampled_distance(audio, motion), params["scale"], params["shift"])
        matches = matching_pairs(self.config.loss.matching, batch["emotion"])
        terms = {
            "match": masked_mean(match_loss(logits, matches)),
            "kl_audio": masked_mean(standard_normal_kl(audio)),
            "kl_motion": masked_mean(standard_normal_kl(motion)),
        }
        kl_weight = self.config.loss.kl_weight
        total = weighted_total(terms, {"match": 1.0, "kl_audio": kl_weight, "kl_motion": kl_weight})
        return total, (model_state, {**terms, "scale": params["scale"], "shift": params["shift"]})

    def evaluate(self, variables: PyTree, split: str) -> dict[str, float]:
        """Retrieval in both directions over all clips of the split, by emotion and by exact pair."""
        frozen = self.frozen_variables()
        embed = jax.jit(self.embed)
        rows = []
        for batch in self.clips(split):
            names = ("audio", "motion", "num_samples", "num_frames")
            gaussians = embed(variables, frozen, {name: batch[name] for name in names})
            valid = valid_rows(batch)
            rows.append(
                (*jax.tree.map(lambda x, keep=valid: np.asarray(x)[keep], gaussians), batch["emotion"][valid])
            )
        audio, motion = (
            Gaussian(*(np.concatenate(parts) for parts in zip(*side, strict=True)))
            for side in list(zip(*rows, strict=True))[:2]
        )
        emotion = np.concatenate([row[2] for row in rows])
        distance = np.asarray(closed_form_sampled_distance(audio, motion))
        return {
            "speech_to_motion_r1": label_recall(distance, emotion, emotion),
            "motion_to_speech_r1": label_recall(distance.T, emotion, emotion),
            "speech_to_motion_r5": label_recall(distance, emotion, emotion, k=min(5, len(emotion))),
            "motion_to_speech_r5": label_recall(distance.T, emotion, emotion, k=min(5, len(emotion))),
            "speech_to_motion_pair_r1": pair_recall(distance),
            "motion_to_speech_pair_r1": pair_recall(distance.T),
            "chance": label_chance(emotion, emotion),
            "num_clips": len(emotion),
        }
