"""Evaluation of DEE's embedding space: retrieval, calibration of the match probability, and use of the variance.

Retrieval follows the DEEPTalk paper (docs/method.md, section 2), calibration follows Guo et al. (ICML 2017).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict
from scipy.special import expit, log_expit

from deeptalk_jax.evaluation.charts import draw_confusions, draw_reliability
from deeptalk_jax.evaluation.emotion_space_chart import draw_map, draw_variances
from deeptalk_jax.evaluation.result import Evaluation, Panel, Table
from deeptalk_jax.losses.distances import gaussian_distance, squared_euclidean_distance
from deeptalk_jax.losses.pair_logits import pair_inputs, pair_logits
from deeptalk_jax.metrics.calibration import Reliability, brier_skill, reliability
from deeptalk_jax.metrics.classification import class_accuracy, confusion_matrix
from deeptalk_jax.metrics.retrieval import label_chance, label_ranks, nearest_labels, pair_ranks, recall_at
from deeptalk_jax.metrics.uncertainty import (
    group_means,
    grouped_rank_correlation,
    label_entropy,
    quantile_groups,
    rank_correlation,
    total_variance,
)
from deeptalk_jax.models.dee import single_gaussian
from deeptalk_jax.types import EMOTIONS, Array, Gaussian

PyTree = Any

DIRECTIONS = {"speech": "speech_to_motion", "motion": "motion_to_speech"}  # retrieval by tower of the query
_RECALLS = (1, 5, 10)
_NUM_GROUPS = 10  # deciles of the variance
_QUERIES_AT_ONCE = 64  # the memory of the sampled match probability grows with the square of the samples
_NEUTRAL = EMOTIONS.index("neutral")


class Embeddings(NamedTuple):
    """Embeddings of the speech and the motion of all clips of a split.

    Attributes:
        audio_components: mixtures of Gaussians of the speech, `[n, k, d]`.
        motion_components: mixtures of Gaussians of the motion, `[n, k, d]`.
        emotion: classes, `[n]`.
        intensity: intensities from 0, `[n]`.
    """

    audio_components: Gaussian
    motion_components: Gaussian
    emotion: np.ndarray
    intensity: np.ndarray

    @property
    def audio(self) -> Gaussian:
        """One Gaussian for the speech of each clip, `[n, d]`."""
        return jax.tree.map(np.asarray, single_gaussian(self.audio_components))

    @property
    def motion(self) -> Gaussian:
        """One Gaussian for the motion of each clip, `[n, d]`."""
        return jax.tree.map(np.asarray, single_gaussian(self.motion_components))

    @property
    def towers(self) -> dict[str, Gaussian]:
        """Both Gaussians, by name of the tower."""
        return {"speech": self.audio, "motion": self.motion}


def embed_clips(
    embed: Callable[..., tuple[Gaussian, Gaussian]],
    variables: PyTree,
    frozen: PyTree,
    batches: Iterable[dict[str, Any]],
) -> Embeddings:
    """Embeds the clips of all batches and drops padding rows."""
    rows, embed = [], jax.jit(embed)
    for batch in batches:
        names = ("audio", "motion", "num_samples", "num_frames")
        gaussians = embed(variables, frozen, {name: batch[name] for name in names})
        found = Embeddings(*gaussians, batch["emotion"], batch["intensity"])
        rows.append(jax.tree.map(lambda values, keep=batch["valid"]: np.asarray(values)[keep], found))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *rows)


def retrieval_distance(loss: ConfigDict, audio: Gaussian, motion: Gaussian) -> Float[Array, "b c"]:
    """Returns the distance that the loss trains: between means for `info_nce`, otherwise between Gaussians."""
    if loss.kind == "info_nce":
        return squared_euclidean_distance(audio.mean, motion.mean)
    return gaussian_distance(loss.distance, audio, motion)


def trained_logits(
    loss: ConfigDict, embeddings: Embeddings, scale: Float[Array, ""], shift: Float[Array, ""]
) -> Float[np.ndarray, "b c"] | None:
    """Returns the trained logit of the match probability of all pairs; None for `info_nce`, which has no such logit."""
    if loss.kind == "info_nce":
        return None
    mixtures = (embeddings.audio_components, embeddings.motion_components)
    speech, motion = pair_inputs(loss.kind, *mixtures, num_samples=loss.num_samples, key=jax.random.key(0))
    logits = jax.jit(partial(pair_logits, loss.kind, loss.distance))
    blocks = [
        logits(jax.tree.map(lambda x, at=start: x[at : at + _QUERIES_AT_ONCE], speech), motion, scale, shift)
        for start in range(0, len(embeddings.emotion), _QUERIES_AT_ONCE)
    ]
    return np.concatenate(blocks)


def training_weights(num_clips: int, batch_size: int) -> Float[np.ndarray, "n n"]:
    """Returns how often two clips share a random training batch, relative to a clip with itself.

    Each clip is equally likely to be in a batch, so another clip is in `(batch - 1) / (n - 1)` of the batches that hold
    a given one. With these weights the share of matching pairs is that of training, whatever the size of the split.
    """
    weights = np.full((num_clips, num_clips), (batch_size - 1) / max(num_clips - 1, 1))
    np.fill_diagonal(weights, 1.0)
    return weights


def evaluate_space(
    loss: ConfigDict,
    embeddings: Embeddings,
    matches: Bool[np.ndarray, "n n"],
    scale: Float[Array, ""],
    shift: Float[Array, ""],
    batch_size: int,
) -> Evaluation:
    """Evaluates a split; metrics that its clips leave undefined, such as a correlation, are omitted.

    Args:
        loss: `config.loss`.
        embeddings: embeddings of the clips.
        matches: whether each pair counts as a match in training.
        scale: DEE's learned scale of the logit.
        shift: DEE's learned shift of the logit.
        batch_size: batch size of the training.
    """
    distance = np.asarray(retrieval_distance(loss, embeddings.audio, embeddings.motion))
    labels = embeddings.emotion
    metrics = _recalls(distance, labels)
    details: dict[str, Any] = {
        direction: _retrieval_details(queries, embeddings)
        for direction, queries in zip(DIRECTIONS.values(), (distance, distance.T), strict=True)
    }
    curve = None
    logits = trained_logits(loss, embeddings, scale, shift)
    if logits is not None:  # without a logit, the loss does not train the variance either
        logits = logits.astype(np.float64)
        probability, by_query = expit(logits), (log_expit(logits), log_expit(logits.T))
        for (name, tower), matched in zip(embeddings.towers.items(), by_query, strict=True):
            variance, entropy = total_variance(tower.log_variance), label_entropy(matched, labels)
            metrics[f"{name}_variance"] = float(variance.mean())
            for kind, values in (("variance", variance), ("entropy", entropy)):
                metrics[f"{name}_{kind}_intensity_spearman"] = rank_correlation(values, embeddings.intensity)
                hits = details[DIRECTIONS[name]]["hits"]
                details[f"{name}_{kind}"] = _ambiguity_details(values, hits, embeddings)
        weights = training_weights(len(labels), batch_size)
        curve = reliability(probability, matches, weights)
        metrics["ece"] = curve.expected_calibration_error
        metrics["brier_skill"] = brier_skill(probability, matches, weights)
        details["reliability"] = {name: _numbers(values) for name, values in curve._asdict().items()}
    metrics = {name: value for name, value in metrics.items() if np.isfinite(value)}
    return Evaluation(metrics, details, lambda: _panels(embeddings, metrics, details, curve))


def _recalls(distance: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Computes R@k and the median rank in both directions, by emotion and by exact pair, and the chance level."""
    num_clips = len(labels)
    recalls = {k: min(k, num_clips) for k in _RECALLS}  # a split may have fewer clips than k
    metrics = {}
    for direction, queries in zip(DIRECTIONS.values(), (distance, distance.T), strict=True):
        by_emotion, by_pair = label_ranks(queries, labels, labels), pair_ranks(queries)
        for kind, ranks in (("", by_emotion), ("_pair", by_pair)):
            for k, limit in recalls.items():
                metrics[f"{direction}{kind}_r{k}"] = recall_at(ranks, limit, num_clips)
            metrics[f"{direction}{kind}_median_rank"] = float(np.median(ranks))
    for k, limit in recalls.items():
        suffix = "" if k == 1 else f"_r{k}"
        metrics[f"chance{suffix}"] = label_chance(labels, labels, k=limit)
        metrics[f"chance_pair{suffix}"] = limit / num_clips
    return metrics | {"num_clips": num_clips}


def _retrieval_details(distance: np.ndarray, embeddings: Embeddings) -> dict[str, Any]:
    """Returns the confusion of emotions in one direction, and R@1 by emotion and intensity of the query."""
    labels = embeddings.emotion
    nearest = nearest_labels(distance, labels)
    confusion = confusion_matrix(labels, nearest, len(EMOTIONS))
    hits = nearest == labels
    return {
        "hits": hits.tolist(),
        "confusion": confusion.tolist(),
        "r1_by_emotion": dict(zip(EMOTIONS, _numbers(class_accuracy(confusion)), strict=True)),
        "r1_by_intensity": group_means(hits, embeddings.intensity + 1),
    }


def _ambiguity_details(values: np.ndarray, hits: list[bool], embeddings: Embeddings) -> dict[str, Any]:
    """Summarises a measure of ambiguity, one value per query: means by group, and rank correlations."""
    emotion, intensity = embeddings.emotion, embeddings.intensity
    expressive = emotion != _NEUTRAL  # a neutral clip is the same at any intensity
    hits = np.asarray(hits)
    deciles = quantile_groups(values, min(_NUM_GROUPS, len(values)))
    by_emotion = group_means(values, emotion)
    return {
        "mean_by_intensity": group_means(values, intensity + 1),
        "mean_by_emotion": {EMOTIONS[label]: value for label, value in by_emotion.items()},
        "intensity_spearman": _number(rank_correlation(values, intensity)),
        "intensity_spearman_without_neutral": _number(
            rank_correlation(values[expressive], intensity[expressive])
        ),
        "intensity_spearman_within_emotion": _number(
            grouped_rank_correlation(values[expressive], intensity[expressive], emotion[expressive])
        ),
        "hit_spearman": _number(rank_correlation(values, hits)),
        "mean_by_decile": list(group_means(values, deciles).values()),
        "r1_by_decile": list(group_means(hits, deciles).values()),
    }


def _number(value: float) -> float | None:
    """Returns None for NaN, which JSON does not have."""
    return float(value) if np.isfinite(value) else None


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_number(value) for value in values]


def _panels(
    embeddings: Embeddings, metrics: dict[str, float], details: dict[str, Any], curve: Reliability | None
) -> list[Panel]:
    """Draws the charts, each with its table."""
    panels = [_map_panel(embeddings), _confusion_panel(details)]
    if curve is not None:
        panels += [_variance_panel(embeddings, metrics, details), _reliability_panel(curve)]
    return panels


def _map_panel(embeddings: Embeddings) -> Panel:
    return Panel(
        "map",
        "The emotion space",
        "Means of both towers, projected on their two common principal axes: equal positions in both halves are the "
        "same point of the space. Ellipses show one standard deviation of each Gaussian. A name marks the median of "
        "its clips. Each emotion should have the same position in both halves, apart from the others.",
        draw_map(embeddings.towers, embeddings.emotion),
    )


def _confusion_panel(details: dict[str, Any]) -> Panel:
    titles = {direction: direction.replace("_", " ") for direction in DIRECTIONS.values()}
    rows = [
        (emotion, *(details[direction]["r1_by_emotion"][emotion] for direction in titles))
        for emotion in EMOTIONS
    ]
    confusions = {title: np.array(details[direction]["confusion"]) for direction, title in titles.items()}
    return Panel(
        "confusion",
        "Emotion of the nearest clip of the other modality",
        "Rows: emotion of the query; columns: emotion of its nearest clip. Correct answers are on the diagonal.",
        draw_confusions(confusions, EMOTIONS, "emotion of the nearest clip"),
        Table(("R@1 by emotion", *titles.values()), rows),
    )


def _variance_panel(embeddings: Embeddings, metrics: dict[str, float], details: dict[str, Any]) -> Panel:
    spread = {name: total_variance(tower.log_variance) for name, tower in embeddings.towers.items()}
    found = {name: details[f"{name}_variance"] for name in spread}
    by_intensity = {name: details[direction]["r1_by_intensity"] for name, direction in DIRECTIONS.items()}
    columns = [f"{name}_{kind}" for kind in ("variance", "entropy") for name in spread]
    labels = {f"mean at intensity {level}": ("mean_by_intensity", level) for level in by_intensity["speech"]}
    labels |= {
        "rank correlation with intensity": ("intensity_spearman",),
        "the same without neutral clips": ("intensity_spearman_without_neutral",),
        "the same within each emotion, averaged": ("intensity_spearman_within_emotion",),
        "rank correlation with finding the emotion": ("hit_spearman",),
    }
    rows = [(label, *(_at(details[column], keys) for column in columns)) for label, keys in labels.items()]
    return Panel(
        "variance",
        "Variance as a measure of ambiguity",
        "Total variance is the sum over channels of exp(log_variance). Weak emotions are ambiguous: their variance "
        "should be larger (left) and their retrieval worse (middle). If the variance predicts failed queries, the "
        "curves on the right fall. The table compares it with the entropy (nats) of the emotions of the other "
        "modality, weighted by match probability, which depends on the variance and on the position in the space.",
        draw_variances(
            spread,
            embeddings.intensity + 1,
            by_intensity,
            {name: values["r1_by_decile"] for name, values in found.items()},
            metrics["chance"],
        ),
        Table(("", *(column.replace("_", ", ") for column in columns)), rows),
    )


def _at(tree: dict[str, Any], keys: Sequence[Any]) -> Any:
    """Returns the entry of nested dictionaries at a path."""
    for key in keys:
        tree = tree[key]
    return tree


def _reliability_panel(curve: Reliability) -> Panel:
    edges = zip(curve.edges[:-1], curve.edges[1:], strict=True)
    columns = (curve.confidence, curve.frequency, curve.share)
    rows = [
        (f"{low:.2f} to {high:.2f}", *map(_number, values))
        for (low, high), values in zip(edges, zip(*columns, strict=True), strict=True)
    ]
    return Panel(
        "reliability",
        "Calibration of the match probability",
        "Pairs of speech and motion, grouped by predicted match probability and weighted by how often they share a "
        "training batch. On the dotted line predictions are calibrated; below it the model is overconfident.",
        draw_reliability(curve),
        Table(("probability", "mean", "share that match", "share of pairs"), rows),
    )
