"""Terms of the contrastive loss of DEE: what a config compares, and which pairs match (SPEC section 2)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import einops
import jax
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
from deeptalk_jax.losses.reduce import masked_mean
from deeptalk_jax.losses.row_blocks import over_row_blocks
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
    sides = compared(loss, audio, motion, key)
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


def compared(loss: ConfigDict, audio: Gaussian, motion: Gaussian, key: KeyArray) -> tuple[PyTree, PyTree]:
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


def pair_logits(loss: ConfigDict, rows: PyTree, columns: PyTree, scale: Array, shift: Array) -> Array:
    """Match logits `[b, c]` of all pairs of what `compared` gives."""
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
        logits = pair_logits(loss, side, columns, *parameters)
        matches = block_labels[:, None] == column_labels[None, :]
        return {
            name: einops.reduce(function(logits, matches), "b ... -> b", "mean")
            for name, function in functions.items()
        }

    return jax.tree.map(masked_mean, over_row_blocks(row_losses, (rows, labels), loss.chunk_rows))
