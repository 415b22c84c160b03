"""Stage DEE: the emotion space of speech and motion (SPEC section 2)."""

from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from deeptalk_jax.losses.contrastive import (
    cosine_logits,
    gaussian_samples,
    info_nce,
    info_nce_scale,
    match_logits,
    match_loss,
    pseudo_match_loss,
    sampled_match_logits,
    standard_normal_kl,
)
from deeptalk_jax.losses.distances import gaussian_distance, squared_euclidean_distance
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.metrics.retrieval import label_chance, label_recall, pair_recall
from deeptalk_jax.models.fer import FER
from deeptalk_jax.stages.base import Stage, merged, valid_rows
from deeptalk_jax.stages.builders import build_dee, build_fer, init_dee
from deeptalk_jax.stages.emotion_centroids import emotion_centroids
from deeptalk_jax.types import Array, Gaussian

PyTree = Any

MATCHINGS = ("diagonal", "same_emotion")
LOSS_KINDS = ("csd", "mc_soft_contrastive", "info_nce")


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


def contrastive_terms(
    loss: ConfigDict,
    audio: Gaussian,
    motion: Gaussian,
    matches: Bool[Array, "b b"],
    scale: Float[Array, ""],
    shift: Float[Array, ""],
    key: KeyArray,
) -> tuple[dict[str, Array], dict[str, float]]:
    """Loss terms of a batch of Gaussians, and their weights.

    Args:
        loss: `config.loss`.
        audio: of the speech.
        motion: of the motion.
        matches: which pairs match.
        scale: DEE's parameter; of `info_nce` the logarithm of the logits' scale.
        shift: DEE's parameter.
        key: of the samples.

    Raises:
        ValueError: an unknown kind of loss, or smoothing of one that has no pseudo-positives.
    """
    if loss.kind == "info_nce":
        if loss.smoothing:
            raise ValueError(f"loss.smoothing={loss.smoothing} does not go with loss.kind='info_nce'")
        logits = cosine_logits(audio.mean, motion.mean, info_nce_scale(scale))
        directions = (info_nce(logits, matches), info_nce(logits.T, matches.T))
        return {"match": sum(map(masked_mean, directions)) / 2.0}, {"match": 1.0}
    if loss.kind == "csd":
        logits = match_logits(gaussian_distance(loss.distance, audio, motion), scale, shift)
    elif loss.kind == "mc_soft_contrastive":
        noise = jax.random.normal(key, (2, audio.mean.shape[0], loss.num_samples, audio.mean.shape[1]))
        samples = (gaussian_samples(*side) for side in zip((audio, motion), noise, strict=True))
        logits = sampled_match_logits(*samples, scale, shift)
    else:
        raise ValueError(f"loss.kind={loss.kind!r} is not one of {LOSS_KINDS}")
    terms = {
        "match": masked_mean(match_loss(logits, matches)),
        "kl_audio": masked_mean(standard_normal_kl(audio)),
        "kl_motion": masked_mean(standard_normal_kl(motion)),
    }
    weights = {"match": 1.0, "kl_audio": loss.kl_weight, "kl_motion": loss.kl_weight}
    if loss.smoothing:
        terms["pseudo_match"] = masked_mean(pseudo_match_loss(logits, matches))
        weights["pseudo_match"] = loss.smoothing
    return terms, weights


def retrieval_distance(loss: ConfigDict, audio: Gaussian, motion: Gaussian) -> Float[Array, "b c"]:
    """The distance that the loss has trained: of points for `info_nce`, else of Gaussians."""
    if loss.kind == "info_nce":
        return squared_euclidean_distance(audio.mean, motion.mean)
    return gaussian_distance(loss.distance, audio, motion)


class DEEStage(Stage):
    """Trains both towers with a contrastive loss; FER is frozen."""

    name = "dee"
    upstream_parts = MappingProxyType({"fer": ("fer",)})

    def __init__(self, config):
        super().__init__(config)
        self.model = build_dee(config)
        self.fer = build_fer(self.upstream["fer"].config)

    def init(self, key: KeyArray) -> PyTree:
        """Variables before training."""
        return init_dee(self.model, self.fer.feature_dim, key)

    def statistics(self, variables: PyTree) -> dict[str, np.ndarray]:
        """Centroids of the emotions, by which a person can ask for one."""
        return emotion_centroids(self.model, variables, self.config.data)._asdict()

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
        """Contrastive loss over all pairs of the batch; of Gaussians also a small divergence from N(0, 1)."""
        audio, motion = self.embed(
            merged(params, model_state), frozen, batch, train=True, rngs={"dropout": key}
        )
        scale, shift = params["scale"], params["shift"]
        matches = matching_pairs(self.config.loss.matching, batch["emotion"])
        terms, weights = contrastive_terms(
            self.config.loss, audio, motion, matches, scale, shift, jax.random.fold_in(key, 0)
        )
        return weighted_total(terms, weights), (model_state, {**terms, "scale": scale, "shift": shift})

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
        distance = np.asarray(retrieval_distance(self.config.loss, audio, motion))
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
