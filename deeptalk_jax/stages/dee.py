"""Stage DEE: the emotion space of speech and motion (SPEC section 2)."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import einops
import jax
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float, Int
from ml_collections import ConfigDict

from deeptalk_jax.collectives import draw_rows, global_rows, row_numbers
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
from deeptalk_jax.losses.distances import gaussian_distance
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.losses.row_blocks import over_row_blocks
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.stages.base import Evaluation, Stage, merged
from deeptalk_jax.stages.builders import build_dee, build_fer, init_dee
from deeptalk_jax.stages.dee_evaluation import embed_clips, evaluate_space
from deeptalk_jax.stages.emotion_centroids import emotion_centroids
from deeptalk_jax.types import Array, Gaussian

PyTree = Any

MATCHINGS = ("diagonal", "same_emotion")
LOSS_KINDS = ("csd", "mc_soft_contrastive", "info_nce")


def match_labels(kind: str, emotion: Int[Array, " b"]) -> Int[Array, " b"]:
    """Labels whose equality makes a speech-motion pair a match.

    Raises:
        ValueError: an unknown kind.
    """
    if kind == "diagonal":
        return row_numbers(emotion.shape[0])
    if kind == "same_emotion":
        return emotion
    raise ValueError(f"matching={kind!r} is not one of {MATCHINGS}")


def matching_pairs(kind: str, emotion: Int[Array, " b"]) -> Bool[Array, "b b"]:
    """Which speech-motion pairs of a batch count as matches; for what it raises see `match_labels`."""
    labels = match_labels(kind, emotion)
    return labels[:, None] == labels[None, :]


def contrastive_terms(
    loss: ConfigDict,
    audio: Gaussian,
    motion: Gaussian,
    labels: Int[Array, " b"],
    scale: Float[Array, ""],
    shift: Float[Array, ""],
    key: KeyArray,
) -> tuple[dict[str, Array], dict[str, float]]:
    """Loss terms of a batch of mixtures of Gaussians, and their weights.

    Args:
        loss: `config.loss`.
        audio: of the speech, `[b, k, d]` with k components.
        motion: of the motion.
        labels: as `match_labels`.
        scale: DEE's parameter; of `info_nce` the logarithm of the logits' scale.
        shift: DEE's parameter.
        key: of the samples.

    Raises:
        ValueError: an unknown kind of loss, several components for one that compares single Gaussians, smoothing of
            one that has no pseudo-positives, or `chunk_rows` that do not divide the batch.
    """
    sides = _compared(loss, audio, motion, key)
    parameters = (scale, shift)
    if loss.kind == "info_nce":
        directions = (sides, sides[::-1])
        means = [_pair_means(loss, *pair, labels, parameters, {"match": info_nce}) for pair in directions]
        return {"match": (means[0]["match"] + means[1]["match"]) / 2.0}, {"match": 1.0}
    functions = {"match": match_loss}
    weights = {"match": 1.0, "kl_audio": loss.kl_weight, "kl_motion": loss.kl_weight}
    if loss.smoothing:
        functions["pseudo_match"] = pseudo_match_loss
        weights["pseudo_match"] = loss.smoothing
    terms = _pair_means(loss, *sides, labels, parameters, functions)
    terms["kl_audio"] = masked_mean(standard_normal_kl(audio))
    terms["kl_motion"] = masked_mean(standard_normal_kl(motion))
    if loss.smoothing:
        columns = {"pseudo_match": pseudo_match_loss}
        terms["pseudo_match"] += _pair_means(loss, *sides[::-1], labels, parameters, columns)["pseudo_match"]
    return terms, weights


def _compared(loss: ConfigDict, audio: Gaussian, motion: Gaussian, key: KeyArray) -> tuple[PyTree, PyTree]:
    """What the loss compares of speech and motion: samples `[b, n, d]`, Gaussians `[b, d]` or points `[b, d]`."""
    if loss.kind not in LOSS_KINDS:
        raise ValueError(f"loss.kind={loss.kind!r} is not one of {LOSS_KINDS}")
    if loss.kind == "mc_soft_contrastive":
        rows, components, dim = audio.mean.shape
        shape = (rows, components, loss.num_samples, dim)
        noise = [draw_rows(partial(jax.random.normal, side_key), shape) for side_key in jax.random.split(key)]
        samples = (gaussian_samples(*side) for side in zip((audio, motion), noise, strict=True))
        return tuple(einops.rearrange(points, "b k n d -> b (k n) d") for points in samples)
    if audio.mean.shape[1] > 1:
        raise ValueError(
            f"model.num_components={audio.mean.shape[1]} goes with loss.kind='mc_soft_contrastive' only, "
            f"not with {loss.kind!r}"
        )
    if loss.kind == "info_nce" and loss.smoothing:
        raise ValueError(f"loss.smoothing={loss.smoothing} does not go with loss.kind='info_nce'")
    singles = tuple(Gaussian(*(moment[:, 0] for moment in side)) for side in (audio, motion))
    return tuple(side.mean for side in singles) if loss.kind == "info_nce" else singles


def _pair_logits(loss: ConfigDict, rows: PyTree, columns: PyTree, scale: Array, shift: Array) -> Array:
    """Match logits `[b, c]` of all pairs of what `_compared` gives."""
    if loss.kind == "info_nce":
        return cosine_logits(rows, columns, info_nce_scale(scale))
    if loss.kind == "csd":
        return match_logits(gaussian_distance(loss.distance, rows, columns), scale, shift)
    return sampled_match_logits(rows, columns, scale, shift)


def _pair_means(
    loss: ConfigDict,
    rows: PyTree,
    columns: PyTree,
    labels: Int[Array, " b"],
    parameters: tuple[Array, Array],
    functions: Mapping[str, Callable[[Array, Array], Array]],
) -> dict[str, Float[Array, ""]]:
    """Means over all pairs of functions of (logits, matches), by blocks of `loss.chunk_rows` rows.

    Columns are those of the global batch, gathered once.
    """
    columns, column_labels = jax.tree.map(global_rows, (columns, labels))

    def row_losses(block):
        side, block_labels = block
        logits = _pair_logits(loss, side, columns, *parameters)
        matches = block_labels[:, None] == column_labels[None, :]
        return {
            name: einops.reduce(function(logits, matches), "b ... -> b", "mean")
            for name, function in functions.items()
        }

    return jax.tree.map(masked_mean, over_row_blocks(row_losses, (rows, labels), loss.chunk_rows))


class DEEStage(Stage):
    """Trains both towers with a contrastive loss; FER is frozen."""

    name = "dee"
    upstream_parts = MappingProxyType({"fer": ("fer",)})

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        self.model = build_dee(config)
        self.fer = build_fer(self.upstream["fer"].config)

    def init(self, key: KeyArray) -> PyTree:
        """Variables before training."""
        return init_dee(self.model, self.fer.feature_dim, key)

    def pretrained_params(self) -> PyTree:
        """Imported weights of the speech encoder."""
        return self.pretrained_speech()

    def statistics(self, variables: PyTree) -> dict[str, np.ndarray]:
        """Centroids of the emotions, by which a person can ask for one."""
        return emotion_centroids(self.model, variables, self.config.data)._asdict()

    def embed(
        self, variables, frozen, batch, *, train=False, rngs=None, method=DEE.__call__
    ) -> tuple[Gaussian, Gaussian]:
        """Gaussians of speech and motion of a batch; with `DEE.components` those of the mixtures."""
        features = self.fer.apply(frozen["fer"], batch["motion"], method=FER.features)
        return self.model.apply(
            variables,
            batch["audio"],
            batch["num_samples"],
            features,
            batch["num_frames"],
            train=train,
            rngs=rngs,
            method=method,
        )

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Contrastive loss over all pairs of the batch; of Gaussians also a small divergence from N(0, 1)."""
        variables = merged(params, model_state)
        audio, motion = self.embed(
            variables, frozen, batch, train=True, rngs={"dropout": key}, method=DEE.components
        )
        scale, shift = params["scale"], params["shift"]
        labels = match_labels(self.config.loss.matching, batch["emotion"])
        terms, weights = contrastive_terms(
            self.config.loss, audio, motion, labels, scale, shift, jax.random.fold_in(key, 0)
        )
        return weighted_total(terms, weights), (model_state, {**terms, "scale": scale, "shift": shift})

    def evaluation(self, variables: PyTree, split: str) -> Evaluation:
        """Retrieval, calibration and the meaning of the variance over all clips of the split."""
        embeddings = embed_clips(self.embed, variables, self.frozen_variables(), self.clips(split))
        matches = np.asarray(matching_pairs(self.config.loss.matching, embeddings.emotion))
        scale, shift = (variables["params"][name] for name in ("scale", "shift"))
        return evaluate_space(
            self.config.loss, embeddings, matches, scale, shift, self.config.data.batch_size
        )
