"""Stage motion prior: TH-VQVAE or one of its baselines (SPEC section 3)."""

import collections
import operator
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float
from ml_collections import ConfigDict
from tqdm import tqdm

from deeptalk_jax.head.gram import distance_factor, squared_distance
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.contrastive import standard_normal_kl
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.metrics.codebook import CodebookUse
from deeptalk_jax.metrics.motion import MotionErrors
from deeptalk_jax.models.masks import length_mask
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.stages.builders import build_motion_prior, init_motion_prior
from deeptalk_jax.types import EXPRESSION_DIM, MOTION_DIM, Array

PyTree = Any
Terms = dict[str, Array]

RECONSTRUCTIONS = ("vertices", "parameters_l1", "parameters_l2")
_SMOOTHING_WINDOW, _SMOOTHING_ORDER = 5, 2


def savitzky_golay(motion: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Smooths along time with window 5 and order 2; the ends take the fitted polynomial (Savitzky and Golay, 1964).

    The same numbers as `scipy.signal.savgol_filter(motion, 5, 2, axis=1)`.
    """
    length = motion.shape[1]
    operator = scipy.signal.savgol_filter(np.eye(length), _SMOOTHING_WINDOW, _SMOOTHING_ORDER, axis=0)
    return jnp.einsum("ut,btd->bud", operator.astype(np.float32), motion)


def reconstruction_terms(
    loss: ConfigDict,
    vertex_factor: Float[Array, "r 599"],
    motion: Float[Array, "b t 53"],
    target: Float[Array, "b t 53"],
    mask: Bool[Array, "b t"],
) -> tuple[Terms, dict[str, float]]:
    """How far the reconstruction is from its target, in the measure of `loss.reconstruction`; terms and weights.

    Raises:
        ValueError: an unknown measure.
    """
    difference = motion - target
    if loss.reconstruction == "vertices":
        error = squared_distance(vertex_factor, motion, target)
        terms, weights = {"vertex": masked_mean(error, mask)}, {"vertex": loss.vertex_weight}
    elif loss.reconstruction in RECONSTRUCTIONS:
        error = jnp.abs(difference) if loss.reconstruction == "parameters_l1" else jnp.square(difference)
        terms, weights = {"parameters": masked_mean(error, mask)}, {"parameters": loss.parameters_weight}
    else:
        raise ValueError(f"loss.reconstruction={loss.reconstruction!r} is not one of {RECONSTRUCTIONS}")
    if loss.jaw_weight:
        terms["jaw"] = masked_mean(jnp.square(difference[..., EXPRESSION_DIM:]), mask)
        weights["jaw"] = loss.jaw_weight
    return terms, weights


def bottleneck_terms(loss: ConfigDict, output: PriorOutput) -> tuple[Terms, dict[str, float]]:
    """What the bottleneck costs: losses of every codebook, or the divergence of the latents; terms and weights."""
    terms, weights = {}, {}
    for level, quantized in output.levels.items():
        terms[f"commitment_{level}"] = quantized.commitment
        if quantized.codebook_loss is not None:
            terms[f"codebook_{level}"] = quantized.codebook_loss
        weights |= dict.fromkeys(terms, 1.0)  # equation 3 of VQ-VAE; beta is in the commitment
    if output.latents is not None:
        terms["kl"] = jnp.mean(jnp.sum(standard_normal_kl(output.latents), axis=-1))
        weights["kl"] = loss.kl_weight
    return terms, weights


class MotionPriorStage(Stage):
    """Trains a motion prior; the vertex loss is exact and never computes vertices (head/gram.py)."""

    name = "motion_prior"

    def __init__(self, config):
        super().__init__(config)
        self.model = build_motion_prior(config)

    def init(self, key: KeyArray) -> PyTree:
        """Variables before training."""
        return init_motion_prior(self.model, key)

    def frozen_variables(self) -> PyTree:
        """Factor of the vertex distance."""
        return {"vertex_factor": distance_factor(load_head(self.config.head))}

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Error of the reconstruction, and the losses of the bottleneck."""
        dropout_key, sample_key = jax.random.split(key)
        output, model_state = self.model.apply(
            merged(params, model_state),
            batch["motion"],
            train=True,
            rngs={"dropout": dropout_key, "sample": sample_key},
            mutable=list(model_state),
        )
        loss = self.config.loss
        target = savitzky_golay(batch["motion"]) if loss.smooth_targets else batch["motion"]
        mask = length_mask(batch["num_frames"], target.shape[1])
        terms, weights = reconstruction_terms(loss, frozen["vertex_factor"], output.motion, target, mask)
        costs, cost_weights = bottleneck_terms(loss, output)
        terms, weights = terms | costs, weights | cost_weights
        perplexities = {
            f"perplexity_{level}": quantized.perplexity for level, quantized in output.levels.items()
        }
        return weighted_total(terms, weights), (model_state, {**terms, **perplexities})

    def evaluate(self, variables: PyTree, split: str) -> dict[str, float]:
        """Vertex and lip errors of the reconstruction beside two mean poses, bottleneck losses, use of codebooks.

        Clips are cut into whole training windows, so that no padding enters the encoder.
        """

        def reconstruct(variables, window):
            output = self.model.apply(variables, window[None])
            return output, bottleneck_terms(self.config.loss, output)[0]

        # One by one, so that the terms of every window stand apart from those of the padding.
        reconstruct = jax.jit(jax.vmap(reconstruct, in_axes=(None, 0)))
        use = {level: CodebookUse(size) for level, size in self.model.codebook_sizes.items()}
        costs = collections.defaultdict(list)
        clips = self._windows_of_clips(split)
        global_mean = np.concatenate([windows.reshape(-1, MOTION_DIM) for windows in clips]).mean(0)
        errors = MotionErrors(load_head(self.config.head))
        for windows in tqdm(clips, desc=f"{self.name} {split}", unit="clip", leave=False):
            most = self.config.data.max_clip_frames // windows.shape[1]
            padding = ((0, most - len(windows)), (0, 0), (0, 0))
            results = jax.device_get(reconstruct(variables, np.pad(windows, padding)))
            output, terms = jax.tree.map(operator.itemgetter(slice(len(windows))), results)
            for level, codes in use.items():
                codes.add(output.levels[level].indices)
            for name, values in terms.items():
                costs[name].extend(values)
            truth = windows.reshape(-1, MOTION_DIM)
            errors.add(
                truth,
                reconstruction=output.motion.reshape(truth.shape),
                clip_mean=truth.mean(0, keepdims=True),
                global_mean=global_mean[None],
            )
        return {
            "vertex_error_mm": errors.vertex_error_mm("reconstruction"),
            "lip_error_mm": errors.lip_error_mm("reconstruction"),
            "clip_mean_error_mm": errors.vertex_error_mm("clip_mean"),
            "global_mean_error_mm": errors.vertex_error_mm("global_mean"),
            **{name: float(np.mean(values)) for name, values in costs.items()},
            **{f"perplexity_{level}": codes.perplexity for level, codes in use.items()},
            **{f"used_{level}": codes.used_fraction for level, codes in use.items()},
        }

    def _windows_of_clips(self, split: str) -> list[np.ndarray]:
        """`[w, window_frames, 53]` for every clip that is long enough."""
        window = self.config.data.window_frames
        clips = []
        for batch in self.clips(split):
            for motion, num_frames in zip(batch["motion"], batch["num_frames"], strict=True):
                if num_frames >= window:
                    whole = motion[: num_frames - num_frames % window]
                    clips.append(einops.rearrange(whole, "(w t) d -> w t d", t=window))
        return clips
