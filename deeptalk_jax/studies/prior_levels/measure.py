"""Exchange of codes between clips, which shows what each level of the motion prior encodes; see `metrics.code_swap`."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.records import Record
from deeptalk_jax.assembly.build import (
    build_dee,
    build_fer,
    build_motion_prior,
    init_dee,
    init_fer,
    init_motion_prior,
)
from deeptalk_jax.assembly.model_dir import check_variables, load_part, read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.lbs import motion_vertices
from deeptalk_jax.head.load import load_head
from deeptalk_jax.masks import length_mask
from deeptalk_jax.metrics.code_swap import position_between, spread, trajectory_correlation, without_mean
from deeptalk_jax.metrics.motion import jaw_opening
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.models.motion_prior import MotionPrior
from deeptalk_jax.types import MOTION_DIM

PAIR_KINDS = ("other_emotion", "other_sentence")
_SEED = 0  # seed of the random choice of pairs


class Pair(NamedTuple):
    """Motions `[t, 53]` of two clips, cut to the same whole number of windows."""

    first: np.ndarray
    second: np.ndarray


class Models(NamedTuple):
    """Functions that exchange codes and that judge the result.

    Attributes:
        swap: two motions `[b, t, 53]` -> mixed motions by (clip of the top codes, clip of the bottom codes), 0 or 1.
        embed: padded motion `[b, t, 53]`, num_frames `[b]` -> mean of DEE's Gaussian, `[b, d]`.
        classify: padded motion `[b, t, 53]`, num_frames `[b]` -> FER's class of the clip, `[b]`.
        vertices: motion `[t, 53]` -> `[t, v, 3]`.
        lips: indices of the lip vertices.
        window_frames: number of frames of the windows that the prior was trained on.
    """

    swap: Callable
    embed: Callable
    classify: Callable
    vertices: Callable
    lips: np.ndarray
    window_frames: int


def is_pair(kind: str, first: Record, second: Record) -> bool:
    """Returns whether two clips form a pair of a kind, one of `PAIR_KINDS`.

    `other_emotion` pairs have one sentence in two emotions, `other_sentence` pairs two sentences with the same emotion,
    intensity and speaker.

    Raises:
        ValueError: the kind is unknown.
    """
    same = {name: first.labels[name] == second.labels[name] for name in ("emotion", "intensity", "speaker")}
    if kind == "other_emotion":  # of any speakers, because few sentences occur twice
        return bool(first.text) and first.text == second.text and not same["emotion"]
    if kind == "other_sentence":
        return all(same.values()) and first.text != second.text
    raise ValueError(f"kind={kind!r}: expected one of {PAIR_KINDS}")


def find_pairs(records: Sequence[Record], kind: str, limit: int, window_frames: int) -> list[Pair]:
    """Returns up to `limit` pairs of a kind, chosen at random and cut to the whole windows that both clips have.

    Raises:
        UserError: there is no such pair.
    """
    long_enough = [record for record in records if len(record.motion) >= window_frames]
    pairs = [pair for pair in itertools.combinations(long_enough, 2) if is_pair(kind, *pair)]
    if not pairs:
        raise UserError(
            f"no two clips of at least {window_frames} frames form a pair of kind {kind!r}; take a larger split"
        )
    order = np.random.default_rng(_SEED).permutation(len(pairs))[:limit]
    cut = []
    for index in sorted(order):
        first, second = (record.motion for record in pairs[index])
        num_frames = min(len(first), len(second)) // window_frames * window_frames
        cut.append(Pair(first[:num_frames], second[:num_frames]))
    return cut


def study(models: Models, records: Sequence[Record], num_pairs: int) -> dict[str, dict[str, Any]]:
    """Measures up to `num_pairs` pairs of both kinds.

    Returns:
        For each kind the number of pairs, the median and quartiles of each measure, and the shares of FER's classes.

    Raises:
        UserError: there is no pair of a kind.
    """
    report = {}
    for kind in PAIR_KINDS:
        pairs = find_pairs(records, kind, num_pairs, models.window_frames)
        values = measure(models, pairs)
        classes = {name: _share(values.pop(name)) for name in ("class_top", "class_bottom")}
        spreads = {name: spread(numbers) for name, numbers in values.items()}
        report[kind] = {"num_pairs": len(pairs), **spreads, **classes}
    return report


def measure(models: Models, pairs: Sequence[Pair]) -> dict[str, list[float]]:
    """Computes each measure for each pair, averaged over both mixtures of a pair's codes.

    Returns:
        Values by name. Positions between the clip of the bottom codes (0) and the clip of the top codes (1):
        `emotion_embedding` (mean of DEE's motion Gaussian), `mean_face` (vertices averaged over time), `jaw_motion` and
        `lip_motion` (without their means over time). Correlations of jaw and lip motion with either source: `jaw_top`,
        `jaw_bottom`, `lip_top`, `lip_bottom`; between the sources: `jaw_sources`, `lip_sources`. Shares of mixtures
        with the FER class of a source: `class_top`, `class_bottom`; NaN if both sources have the same class.
    """
    num_frames = np.array([len(pair.first) for pair in pairs])
    padded = np.zeros((2, len(pairs), num_frames.max(), MOTION_DIM), np.float32)
    for index, pair in enumerate(pairs):
        padded[:, index, : num_frames[index]] = pair
    motions = {places: np.asarray(motion) for places, motion in models.swap(*padded).items()}
    embeddings = {places: np.asarray(models.embed(motion, num_frames)) for places, motion in motions.items()}
    classes = {places: np.asarray(models.classify(motion, num_frames)) for places, motion in motions.items()}
    values = defaultdict(list)
    for index, length in enumerate(num_frames):
        vertices = {
            places: np.asarray(models.vertices(motion[index]))[:length] for places, motion in motions.items()
        }
        views = {
            "emotion_embedding": {places: embedding[index] for places, embedding in embeddings.items()},
            "mean_face": {places: vertex.mean(axis=0) for places, vertex in vertices.items()},
            "jaw_motion": {
                p: without_mean(jaw_opening(motion[index, :length])) for p, motion in motions.items()
            },
            "lip_motion": {p: without_mean(vertex[:, models.lips]) for p, vertex in vertices.items()},
        }
        for name, view in views.items():
            values[name].append(_both(view, lambda mixed, top, bottom: position_between(mixed, bottom, top)))
        for name in ("jaw", "lip"):
            view = views[f"{name}_motion"]
            values[f"{name}_top"].append(
                _both(view, lambda mixed, top, _: trajectory_correlation(mixed, top))
            )
            values[f"{name}_bottom"].append(
                _both(view, lambda mixed, _, bottom: trajectory_correlation(mixed, bottom))
            )
            values[f"{name}_sources"].append(trajectory_correlation(view[0, 0], view[1, 1]))
        labels = {places: label[index] for places, label in classes.items()}
        for name, agrees in (
            ("class_top", lambda mixed, top, _: float(mixed == top)),
            ("class_bottom", lambda mixed, _, bottom: float(mixed == bottom)),
        ):
            values[name].append(_both(labels, agrees) if labels[0, 0] != labels[1, 1] else float("nan"))
    return dict(values)


def _both(view: dict, judge: Callable) -> float:
    """Averages `judge(mixed, clip of the top codes, clip of the bottom codes)` over both mixtures."""
    return (judge(view[0, 1], view[0, 0], view[1, 1]) + judge(view[1, 0], view[1, 1], view[0, 0])) / 2


def _share(values: Sequence[float]) -> dict[str, float | None]:
    """Returns the mean of the finite values (None if there are none) and their number."""
    finite = [value for value in values if np.isfinite(value)]
    return {"mean": float(np.mean(finite)) if finite else None, "num": len(finite)}


def load_models(directory: str) -> Models:
    """Loads FER, DEE and the motion prior from a model directory.

    Raises:
        UserError: a part is missing or damaged, or the prior does not have two levels.
    """
    fer, dee, prior = (load_part(directory, name) for name in ("fer", "dee", "motion_prior"))
    fer_model, dee_model, prior_model = (
        build_fer(fer.config),
        build_dee(dee.config),
        build_motion_prior(prior.config),
    )
    if not isinstance(prior_model, MotionPrior):
        raise UserError(
            f"{directory}: the motion prior is a {type(prior_model).__name__}; expected one with two levels of codes"
        )
    initialise = {
        "fer": partial(init_fer, fer_model),
        "dee": partial(init_dee, dee_model, fer_model.feature_dim),
        "motion_prior": partial(init_motion_prior, prior_model),
    }
    for (name, init), part in zip(initialise.items(), (fer, dee, prior), strict=True):
        check_variables(name, part.variables, jax.eval_shape(init, jax.random.key(0)))
    fer, dee, prior = (part._replace(variables=jax.device_put(part.variables)) for part in (fer, dee, prior))
    window = prior.config.data.window_frames
    head = load_head(read_index(directory)["head"])

    @jax.jit
    def swap(first, second):
        # The prior encodes and decodes windows, as in training.
        windows = einops.rearrange(jnp.stack([first, second]), "c b (w t) d -> (c b w) t d", t=window)
        top, bottom = prior_model.apply(prior.variables, windows, method=MotionPrior.encode)
        top, bottom = (einops.rearrange(x.codes, "(c n) k d -> c n k d", c=2) for x in (top, bottom))
        places = list(itertools.product((0, 1), repeat=2))
        decoded = prior_model.apply(
            prior.variables,
            jnp.concatenate([top[place] for place, _ in places]),
            jnp.concatenate([bottom[place] for _, place in places]),
            method=MotionPrior.decode,
        )
        motions = einops.rearrange(decoded, "(p b w) t d -> p b (w t) d", p=4, b=first.shape[0])
        return dict(zip(places, motions, strict=True))

    @jax.jit
    def embed(motion, num_frames):
        features = fer_model.apply(fer.variables, motion, method=FER.features)
        return dee_model.apply(dee.variables, features, num_frames, method=DEE.embed_motion).mean

    @jax.jit
    def classify(motion, num_frames):
        logits = fer_model.apply(fer.variables, motion)
        return jnp.argmax(
            jnp.sum(logits * length_mask(num_frames, motion.shape[1])[..., None], axis=1), axis=-1
        )

    vertices = jax.jit(lambda motion: motion_vertices(head, motion))
    return Models(swap, embed, classify, vertices, np.asarray(head.masks["lips"]), window)
