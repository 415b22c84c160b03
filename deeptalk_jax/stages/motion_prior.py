"""Stage motion prior: trains TH-VQVAE or one of its baselines (docs/method.md, section 3).

The vertex loss is exact without computing vertices, see `head/gram.py` (section 3.1).
"""

import collections
import operator
from functools import partial
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from absl import logging
from jaxtyping import Array as KeyArray
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from deeptalk_jax.assembly.build import build_motion_prior, init_motion_prior
from deeptalk_jax.collectives import global_mean
from deeptalk_jax.errors import ConfigError
from deeptalk_jax.evaluation.face import TRUTH, FaceClip, face_report
from deeptalk_jax.evaluation.face_chart import draw_face
from deeptalk_jax.evaluation.result import Evaluation
from deeptalk_jax.head.gram import (
    gap_factor,
    region_factors,
    squared_acceleration_distance,
    squared_distance,
    squared_velocity_distance,
)
from deeptalk_jax.head.load import load_head
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.losses.contrastive import standard_normal_kl
from deeptalk_jax.losses.motion import jaw_error, parameter_error
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.masks import length_mask
from deeptalk_jax.metrics.codebook import CodebookUse
from deeptalk_jax.metrics.face_points import FacePoints
from deeptalk_jax.metrics.motion import MotionErrors, RegionErrors
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.progress import progress_bar
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.types import MOTION_DIM, Array

PyTree = Any
Terms = dict[str, Array]

# Kind of parameter error by name of the reconstruction loss; None for the error of the vertices.
RECONSTRUCTIONS = {"vertices": None, "parameters_l1": "l1", "parameters_l2": "l2"}
# Region of the head by name of the vertex distance.
REGIONS = {"vertex": "all", "velocity": "all", "lips": "lips", "eyes": "eyes", "tremble": "forehead"}
# Key of `head.gram.GAPS` by name of the error of a gap.
GAP_TERMS = {"lip_gap": "lips", "lid_gap": "lids"}
# Distances of differences over time; the others compare positions.
OVER_TIME = {"velocity": squared_velocity_distance, "tremble": squared_acceleration_distance}
RECONSTRUCTION = "reconstruction"  # name of the motion in the measures of the face
_SMOOTHING_WINDOW, _SMOOTHING_ORDER = 5, 2


def savitzky_golay(motion: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Smooths motion along time with a window of 5 frames and order 2 (Savitzky and Golay, 1964).

    Equals `scipy.signal.savgol_filter(motion, 5, 2, axis=1)`: frames at the ends take the polynomial of the first and
    last window. As a matrix product it runs on the device.
    """
    length = motion.shape[1]
    operator = scipy.signal.savgol_filter(np.eye(length), _SMOOTHING_WINDOW, _SMOOTHING_ORDER, axis=0)
    return jnp.einsum("ut,btd->bud", operator.astype(np.float32), motion)


def distance_weights(loss: ConfigDict) -> dict[str, float]:
    """Returns the weights of the vertex distances that are above 0, by name of the term."""
    weights = {"lips": loss.lip_weight, "eyes": loss.eye_weight, "velocity": loss.velocity_weight}
    weights["tremble"] = loss.tremble_weight
    weights |= {name: loss[f"{name}_weight"] for name in GAP_TERMS}
    if loss.reconstruction == "vertices":
        weights["vertex"] = loss.vertex_weight
    return {name: weight for name, weight in weights.items() if weight}


def distance_factors(head: HeadModel, loss: ConfigDict) -> dict[str, Float[np.ndarray, "r 599"]]:
    """Computes the factors of the vertex distances that have a weight, by name of the term (`head/gram.py`)."""
    names = distance_weights(loss)
    regions = region_factors(head, sorted({REGIONS[name] for name in names if name in REGIONS}))
    return {
        name: gap_factor(head, GAP_TERMS[name]) if name in GAP_TERMS else regions[REGIONS[name]]
        for name in names
    }


def reconstruction_terms(
    loss: ConfigDict,
    factors: dict[str, Float[Array, "r 599"]],
    motion: Float[Array, "b t 53"],
    target: Float[Array, "b t 53"],
    mask: Bool[Array, "b t"],
) -> tuple[Terms, dict[str, float]]:
    """Computes the reconstruction errors that have a weight.

    Args:
        loss: `config.loss`.
        factors: factor of each distance that has a weight, by name of the term (`distance_factors`).
        motion: the reconstruction.
        target: motion to reconstruct.
        mask: true for valid frames.

    Returns:
        Scalar terms and weights, both by name.

    Raises:
        ConfigError: an unknown `loss.reconstruction`.
    """
    if loss.reconstruction not in RECONSTRUCTIONS:
        raise ConfigError(
            f"loss.reconstruction={loss.reconstruction!r}: expected one of {', '.join(RECONSTRUCTIONS)}"
        )
    weights = distance_weights(loss)
    terms = {}
    for name in weights:
        distance = OVER_TIME.get(name, squared_distance)
        error = distance(factors[name], motion, target)
        terms[name] = masked_mean(error, mask[:, -error.shape[1] :])
    if kind := RECONSTRUCTIONS[loss.reconstruction]:
        terms["parameters"] = masked_mean(parameter_error(kind, motion, target), mask)
        weights["parameters"] = loss.parameters_weight
    if loss.jaw_weight:
        terms["jaw"] = masked_mean(jaw_error(motion, target), mask)
        weights["jaw"] = loss.jaw_weight
    return terms, weights


def bottleneck_terms(loss: ConfigDict, output: PriorOutput) -> tuple[Terms, dict[str, float]]:
    """Computes the losses of each codebook, or the divergence of the latents from N(0, 1) for the temporal VAE.

    Returns:
        Scalar terms and weights, both by name.
    """
    terms, weights = {}, {}
    for level, quantized in output.levels.items():
        terms[f"commitment_{level}"] = quantized.commitment
        if quantized.codebook_loss is not None:
            terms[f"codebook_{level}"] = quantized.codebook_loss
        weights |= dict.fromkeys(terms, 1.0)  # VQ-VAE, equation 3; the commitment includes beta
    if output.latents is not None:
        terms["kl"] = global_mean(jnp.sum(standard_normal_kl(output.latents), axis=-1))
        weights["kl"] = loss.kl_weight
    return terms, weights


class _ClipWindows(NamedTuple):
    """Whole training windows `[w, window_frames, 53]` of a clip with its labels; `visemes` are those of all frames."""

    windows: np.ndarray
    emotion: int
    intensity: int
    visemes: np.ndarray


class MotionPriorStage(Stage):
    """Trains a motion prior: the hierarchical one of the paper or a baseline."""

    name = "motion_prior"
    uses_masks = True

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        self.model = build_motion_prior(config)
        if config.model.kind != "temporal_vae" and config.model.start_after >= config.num_steps:
            logging.warning(
                "model.start_after=%d, num_steps=%d: training ends before any latent is quantised",
                config.model.start_after,
                config.num_steps,
            )

    def init(self, key: KeyArray) -> PyTree:
        """Returns initial variables of the prior."""
        return init_motion_prior(self.model, key)

    def constants(self) -> PyTree:
        """Returns the factors of the vertex distances that have a weight, by name of the term."""
        return {"factors": distance_factors(load_head(self.config.head), self.config.loss)}

    def loss_fn(self, params, model_state, constants, batch, step, key):
        """Computes the errors of the reconstruction and the losses of the bottleneck."""
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
        terms, weights = reconstruction_terms(loss, constants["factors"], output.motion, target, mask)
        costs, cost_weights = bottleneck_terms(loss, output)
        terms, weights = terms | costs, weights | cost_weights
        perplexities = {
            f"perplexity_{level}": quantized.perplexity for level, quantized in output.levels.items()
        }
        return weighted_total(terms, weights), (model_state, {**terms, **perplexities})

    def evaluate(self, variables: PyTree, split: str) -> Evaluation:
        """Measures reconstruction errors, bottleneck losses and the use of the codebooks.

        The mean poses of each clip and of the whole split give errors to compare with. `evaluation.face` measures what
        is left of emotions, closed lips and blinks. Clips are cut into whole
        training windows, so that no padding enters the encoder.
        """

        def reconstruct(variables, window):
            output = self.model.apply(variables, window[None])
            return output, bottleneck_terms(self.config.loss, output)[0]

        # `vmap` over single windows keeps the terms of each window apart, so those of padding can be dropped.
        reconstruct = jax.jit(jax.vmap(reconstruct, in_axes=(None, 0)))
        use = {level: CodebookUse(size) for level, size in self.model.codebook_sizes.items()}
        costs = collections.defaultdict(list)
        clips, faces = self._windows_of_clips(split), []
        global_mean = np.concatenate([clip.windows.reshape(-1, MOTION_DIM) for clip in clips]).mean(0)
        head = load_head(self.config.head)
        errors, region_errors = MotionErrors(head), RegionErrors(head)
        for clip in progress_bar(clips, desc=f"{self.name} {split}", unit="clip", leave=False):
            windows = clip.windows
            most = self.config.data.max_clip_frames // windows.shape[1]
            padding = ((0, most - len(windows)), (0, 0), (0, 0))
            results = jax.device_get(reconstruct(variables, np.pad(windows, padding)))
            output, terms = jax.tree.map(operator.itemgetter(slice(len(windows))), results)
            for level, codes in use.items():
                codes.add(output.levels[level].indices)
            for name, values in terms.items():
                costs[name].extend(values)
            truth = windows.reshape(-1, MOTION_DIM)
            reconstruction = output.motion.reshape(truth.shape)
            region_errors.add(truth, reconstruction=reconstruction)
            errors.add(
                truth,
                reconstruction=reconstruction,
                clip_mean=truth.mean(0, keepdims=True),
                global_mean=global_mean[None],
            )
            motions = {TRUTH: truth, RECONSTRUCTION: reconstruction}
            faces.append(FaceClip(motions, clip.emotion, clip.intensity, clip.visemes))
        points = FacePoints(head)
        report = face_report(faces, None, points)
        metrics = {
            "vertex_error_mm": errors.vertex_error_mm("reconstruction"),
            "lip_error_mm": errors.lip_error_mm("reconstruction"),
            "clip_mean_error_mm": errors.vertex_error_mm("clip_mean"),
            "global_mean_error_mm": errors.vertex_error_mm("global_mean"),
            **{f"rms_{region}_mm": error for region, error in region_errors.rms_mm("reconstruction").items()},
            **{name: float(np.mean(values)) for name, values in costs.items()},
            **{f"perplexity_{level}": codes.perplexity for level, codes in use.items()},
            **{f"used_{level}": codes.used_fraction for level, codes in use.items()},
            **report.metrics(RECONSTRUCTION),
        }
        return Evaluation(metrics, report._asdict(), partial(draw_face, faces, report, points))

    def _windows_of_clips(self, split: str) -> list[_ClipWindows]:
        """Returns the whole training windows of each clip that has at least one."""
        window = self.config.data.window_frames
        clips = []
        for batch in self.clips(split):
            for row, num_frames in enumerate(batch["num_frames"]):
                if num_frames >= window:
                    whole = num_frames - num_frames % window
                    windows = einops.rearrange(batch["motion"][row, :whole], "(w t) d -> w t d", t=window)
                    labels = (int(batch[name][row]) for name in ("emotion", "intensity"))
                    clips.append(_ClipWindows(windows, *labels, batch["viseme"][row, :whole]))
        return clips
