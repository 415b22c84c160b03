"""Motions that the measures of the face compare: neutral sentences under named emotions, and reconstructions."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from deeptalk_jax.evaluation.face import NEUTRAL, NamedFaces
from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM, SAMPLES_PER_FRAME, Array

PyTree = Any
_ROWS = 4  # sentences per call; each is animated with all emotions at once
_STEP_FRAMES = 32  # sentences are padded to a multiple of this, so that few shapes are compiled


def named_faces(
    model: Generator,
    variables: PyTree,
    batches: Iterable[Mapping[str, np.ndarray]],
    neutral: Float[np.ndarray, " d"],
    named: Float[np.ndarray, "e i d"],
    identity: Float[np.ndarray, " k"],
) -> NamedFaces | None:
    """Animates the neutral clips of a split with each named emotion and intensity, always taking the likeliest codes.

    Args:
        model: the generator.
        variables: variables of the generator.
        batches: batches of whole clips, see `data_pipeline.loader.clip_loader`.
        neutral: emotion vector of neutral.
        named: emotion vectors; zeros for those that the model does not know. Those of neutral are not used.
        identity: identity vector of all clips.

    Returns:
        The mean expressions; None if the split has no neutral clip.
    """
    sentences = _neutral_sentences(batches)
    if not sentences:
        return None
    num_frames = max(sentence["num_frames"] for sentence in sentences)
    num_frames += -num_frames % _STEP_FRAMES
    asked = named.any(axis=-1)
    asked[NEUTRAL] = False
    vectors = np.concatenate([neutral[None], named[asked]]).astype(np.float32)
    animate = jax.jit(partial(_mean_expressions, model, num_frames))
    means = []
    for start in range(0, len(sentences), _ROWS):
        rows = np.minimum(np.arange(start, start + _ROWS), len(sentences) - 1)
        batch = {name: np.stack([sentences[row][name] for row in rows]) for name in sentences[0]}
        batch["audio"] = batch["audio"][:, : num_frames * SAMPLES_PER_FRAME]
        means.append(np.asarray(animate(variables, batch, vectors, identity), np.float64))
    found = np.concatenate(means)[: len(sentences)]
    shown = np.full((len(found), *asked.shape, EXPRESSION_DIM), np.nan)
    shown[:, asked] = found[:, 1:]
    return NamedFaces(found[:, 0], shown)


def _neutral_sentences(batches: Iterable[Mapping[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    """Returns audio, samples and frames of the neutral clips."""
    sentences = []
    for batch in batches:
        for row in np.flatnonzero(batch["valid"] & (batch["emotion"] == NEUTRAL)):
            sentences.append({name: batch[name][row] for name in ("audio", "num_samples", "num_frames")})
    return sentences


def _mean_expressions(
    model: Generator,
    num_frames: int,
    variables: PyTree,
    batch: Mapping[str, Array],
    vectors: Float[Array, "n d"],
    identity: Float[Array, " k"],
) -> Float[Array, "b n 50"]:
    """Animates each clip of a batch with each emotion vector and returns the mean expressions over its frames."""
    rows = len(batch["num_frames"])
    valid = length_mask(batch["num_frames"], num_frames)

    def mean_expression(vector):
        motion = model.apply(
            variables,
            batch["audio"],
            batch["num_samples"],
            jnp.broadcast_to(vector[None], (rows, *vector.shape)),
            jnp.broadcast_to(identity[None], (rows, *identity.shape)),
            jax.random.split(jax.random.key(0), rows),  # unused at temperature 0
            num_codes=-(-batch["num_frames"] // FRAMES_PER_TOP_CODE),
            num_frames=num_frames,
            method=Generator.sample,
        ).motion
        expression = jnp.where(valid[..., None], motion[..., :EXPRESSION_DIM], 0.0)
        return expression.sum(axis=1) / batch["num_frames"][:, None]

    return jax.vmap(mean_expression, out_axes=1)(vectors)  # the speech is encoded once


def reconstructions(
    prior: nn.Module, variables: PyTree, motions: Sequence[Float[np.ndarray, "_ 53"]], window_frames: int
) -> list[Float[np.ndarray, "_ 53"]]:
    """Encodes and decodes whole clips with a motion prior, in windows as in its training.

    The last window ends with the clip and overlaps the one before it. A clip that is shorter than a window is padded
    with its last frame.
    """
    reconstruct = jax.jit(
        jax.vmap(lambda variables, one: prior.apply(variables, one[None]).motion[0], (None, 0))
    )
    most = max(-(-len(motion) // window_frames) for motion in motions)
    found = []
    for motion in motions:
        starts = [*range(0, len(motion) - window_frames, window_frames), max(len(motion) - window_frames, 0)]
        windows = np.zeros((most, window_frames, MOTION_DIM), np.float32)
        for window, start in zip(windows, starts, strict=False):
            part = motion[start : start + window_frames]
            window[:] = np.pad(part, ((0, window_frames - len(part)), (0, 0)), mode="edge")
        whole = np.zeros_like(motion)
        for start, made in zip(starts, np.asarray(reconstruct(variables, windows)), strict=False):
            whole[start : start + window_frames] = made[: len(motion) - start]
        found.append(whole)
    return found
