"""Logits of all speech-motion pairs for each kind of contrastive loss (docs/method.md, section 2).

The loss of DEE and the evaluation of its space share these functions, so that an evaluation measures the match
probability that was trained.
"""

from functools import partial
from typing import Any

import einops
import jax
from jaxtyping import Array as KeyArray
from jaxtyping import Float

from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.losses.contrastive import (
    cosine_logits,
    gaussian_samples,
    info_nce_scale,
    match_logits,
    sampled_match_logits,
)
from deeptalk_jax.losses.distances import gaussian_distance
from deeptalk_jax.types import Array, Gaussian

PyTree = Any

LOSS_KINDS = ("csd", "mc_soft_contrastive", "info_nce")


def pair_inputs(
    kind: str, speech: Gaussian, motion: Gaussian, *, num_samples: int, key: KeyArray
) -> tuple[PyTree, PyTree]:
    """Reduces the mixtures of speech and motion to the values that a loss compares.

    Args:
        kind: one of `LOSS_KINDS`.
        speech: mixtures `[b, k, d]`.
        motion: mixtures `[b, k, d]`.
        num_samples: number of samples n per component, for "mc_soft_contrastive".
        key: random key of the samples.

    Returns:
        For speech and for motion: samples `[b, k * n, d]` for "mc_soft_contrastive", Gaussians `[b, d]` for "csd",
        means `[b, d]` for "info_nce".

    Raises:
        ConfigError: an unknown kind, or several components for a kind that compares single Gaussians.
    """
    if kind not in LOSS_KINDS:
        raise ConfigError(f"loss.kind={kind!r}: expected one of {', '.join(LOSS_KINDS)}")
    rows, components, dim = speech.mean.shape
    if kind == "mc_soft_contrastive":
        shape = (rows, components, num_samples, dim)
        noise = [draw_rows(partial(jax.random.normal, side_key), shape) for side_key in jax.random.split(key)]
        samples = (gaussian_samples(*side) for side in zip((speech, motion), noise, strict=True))
        return tuple(einops.rearrange(points, "b k n d -> b (k n) d") for points in samples)
    if components > 1:
        raise ConfigError(
            f"model.num_components={components}: expected 1 with loss.kind={kind!r}; only "
            "loss.kind='mc_soft_contrastive' compares mixtures"
        )
    singles = tuple(Gaussian(*(moment[:, 0] for moment in side)) for side in (speech, motion))
    return tuple(side.mean for side in singles) if kind == "info_nce" else singles


def pair_logits(
    kind: str,
    distance: str,
    rows: PyTree,
    columns: PyTree,
    scale: Float[Array, ""],
    shift: Float[Array, ""],
) -> Float[Array, "b c"]:
    """Computes the match logits of all pairs of rows and columns, which `pair_inputs` returns.

    Args:
        kind: one of `LOSS_KINDS`.
        distance: distance between Gaussians for "csd", see `gaussian_distance`.
        rows: b clips of one side.
        columns: c clips of the other side.
        scale: scale of the logits, DEE's parameter; for "info_nce" its logarithm.
        shift: shift of the logits, DEE's parameter; "info_nce" does not use it.
    """
    if kind == "info_nce":
        return cosine_logits(rows, columns, info_nce_scale(scale))
    if kind == "csd":
        return match_logits(gaussian_distance(distance, rows, columns), scale, shift)
    return sampled_match_logits(rows, columns, scale, shift)
