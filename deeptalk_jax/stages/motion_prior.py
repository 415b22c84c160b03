"""Stage motion prior: TH-VQVAE (SPEC section 3)."""

from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal
from jaxtyping import Array as KeyArray
from jaxtyping import Float
from tqdm import tqdm

from deeptalk_jax.head.gram import distance_factor, squared_distance
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.metrics.codebook import CodebookUse
from deeptalk_jax.metrics.motion import MotionErrors
from deeptalk_jax.models.masks import length_mask
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.stages.builders import build_motion_prior, init_motion_prior
from deeptalk_jax.types import MOTION_DIM, Array

PyTree = Any

_SMOOTHING_WINDOW, _SMOOTHING_ORDER = 5, 2


def savitzky_golay(motion: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Smooths along time with window 5 and order 2; the ends take the fitted polynomial (Savitzky and Golay, 1964).

    The same numbers as `scipy.signal.savgol_filter(motion, 5, 2, axis=1)`.
    """
    length = motion.shape[1]
    operator = scipy.signal.savgol_filter(np.eye(length), _SMOOTHING_WINDOW, _SMOOTHING_ORDER, axis=0)
    return jnp.einsum("ut,btd->bud", operator.astype(np.float32), motion)


class MotionPriorStage(Stage):
    """Trains TH-VQVAE; the vertex loss is exact and never computes vertices (head/gram.py)."""

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
        """Vertex error of the reconstruction, and both commitments."""
        dropout_key, sample_key = jax.random.split(key)
        output, model_state = self.model.apply(
            merged(params, model_state),
            batch["motion"],
            train=True,
            rngs={"dropout": dropout_key, "sample": sample_key},
            mutable=list(model_state),
        )
        target = savitzky_golay(batch["motion"]) if self.config.loss.smooth_targets else batch["motion"]
        mask = length_mask(batch["num_frames"], target.shape[1])
        error = squared_distance(frozen["vertex_factor"], output.motion, target)
        terms = {
            "vertex": masked_mean(error, mask),
            "commitment_top": output.top.commitment,
            "commitment_bottom": output.bottom.commitment,
        }
        loss = self.config.loss
        weights = {
            "vertex": loss.vertex_weight,
            "commitment_top": loss.commitment_top_weight,
            "commitment_bottom": loss.commitment_bottom_weight,
        }
        perplexities = {
            "perplexity_top": output.top.perplexity,
            "perplexity_bottom": output.bottom.perplexity,
        }
        return weighted_total(terms, weights), (model_state, {**terms, **perplexities})

    def evaluate(self, variables: PyTree, split: str) -> dict[str, float]:
        """Vertex and lip errors of the reconstruction beside two mean poses, and the use of both codebooks.

        Clips are cut into whole training windows, so that no padding enters the encoder.
        """
        head = load_head(self.config.head)
        reconstruct = jax.jit(self.model.apply)
        use_top = CodebookUse(self.config.model.codebook_size_top)
        use_bottom = CodebookUse(self.config.model.codebook_size_bottom)
        clips = self._windows_of_clips(split)
        global_mean = np.concatenate([windows.reshape(-1, MOTION_DIM) for windows in clips]).mean(0)
        errors = MotionErrors(head)
        for windows in tqdm(clips, desc=f"{self.name} {split}", unit="clip", leave=False):
            most = self.config.data.max_clip_frames // windows.shape[1]
            padding = ((0, most - len(windows)), (0, 0), (0, 0))
            output = jax.tree.map(np.asarray, reconstruct(variables, np.pad(windows, padding)))
            use_top.add(output.top.indices[: len(windows)])
            use_bottom.add(output.bottom.indices[: len(windows)])
            truth = windows.reshape(-1, MOTION_DIM)
            errors.add(
                truth,
                reconstruction=output.motion[: len(windows)].reshape(truth.shape),
                clip_mean=truth.mean(0, keepdims=True),
                global_mean=global_mean[None],
            )
        return {
            "vertex_error_mm": errors.vertex_error_mm("reconstruction"),
            "lip_error_mm": errors.lip_error_mm("reconstruction"),
            "clip_mean_error_mm": errors.vertex_error_mm("clip_mean"),
            "global_mean_error_mm": errors.vertex_error_mm("global_mean"),
            "perplexity_top": use_top.perplexity,
            "perplexity_bottom": use_bottom.perplexity,
            "used_top": use_top.used_fraction,
            "used_bottom": use_bottom.used_fraction,
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
