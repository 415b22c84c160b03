"""Stage DEEPTalk: codes of the motion prior from speech, identity and emotion (SPEC section 4, stage 1)."""

from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from data_pipeline.statistics import mean_motion
from deeptalk_jax.head.gram import distance_factor, squared_distance
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.classification import cross_entropy
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.metrics.motion import Correlation, MotionErrors, jaw_opening
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generated, Generator
from deeptalk_jax.models.masks import length_mask
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE, MotionPrior
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.stages.builders import (
    build_dee,
    build_generator,
    build_motion_prior,
    identity_vector,
    init_predictor,
)
from deeptalk_jax.types import Array

PyTree = Any


def linear_tau(step: Int[Array, ""], *, start: float, end: float, num_steps: int) -> Float[Array, ""]:
    """Temperature of the Gumbel-softmax, falling linearly over the run."""
    return start + (end - start) * jnp.clip(step / num_steps, 0.0, 1.0)


def with_prior(predictor: PyTree, prior: PyTree) -> PyTree:
    """Variables of the generator from those of its trained and its frozen half."""
    halves = {"predictor": predictor, "prior": prior}
    collections = sorted({name for half in halves.values() for name in half})
    return {
        collection: {half: tree[collection] for half, tree in halves.items() if collection in tree}
        for collection in collections
    }


class DEEPTalkStage(Stage):
    """Trains the index predictor; prior, DEE and FER are frozen."""

    name = "deeptalk"
    upstream_parts = MappingProxyType({"dee": ("fer", "dee"), "motion_prior": ("motion_prior",)})

    def __init__(self, config):
        super().__init__(config)
        prior_config = self.upstream["motion_prior"].config
        self.model = build_generator(config, prior_config)
        self.prior = build_motion_prior(prior_config)
        self.dee = build_dee(self.upstream["dee"].config)

    def init(self, key: KeyArray) -> PyTree:
        """Variables of the predictor before training."""
        return init_predictor(self.model, self.upstream["dee"].config.model.embedding_dim, key)

    def pretrained_params(self) -> PyTree:
        """Imported weights of the speech encoder."""
        return self.pretrained_speech()

    def frozen_variables(self) -> PyTree:
        """Upstream variables and the factors of the distances of all vertices and of the lips."""
        head = load_head(self.config.head)
        factors = {
            "vertex_factor": distance_factor(head),
            "lip_factor": distance_factor(head, head.masks["lips"]),
        }
        return {**super().frozen_variables(), **factors}

    def emotion(self, frozen: PyTree, audio: Array, num_samples: Array) -> Float[Array, "b d"]:
        """Mean of DEE's Gaussian for the speech."""
        return self.dee.apply(frozen["dee"], audio, num_samples, method=DEE.embed_audio).mean

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Vertex error of the generated motion, and cross-entropy against the prior's own codes."""
        identity_key, dropout_key, sample_key = jax.random.split(key, 3)
        config, num_frames = self.config, batch["motion"].shape[1]
        generated = self.model.apply(
            with_prior(merged(params, model_state), frozen["motion_prior"]),
            batch["audio"],
            batch["num_samples"],
            self.emotion(frozen, batch["audio"], batch["num_samples"]),
            self._training_identity(batch["identity"], identity_key),
            num_frames=num_frames,
            tau=linear_tau(step, start=config.tau_start, end=config.tau_end, num_steps=config.num_steps),
            rngs={"dropout": dropout_key, "sample": sample_key},
        )
        mask = length_mask(batch["num_frames"], num_frames)
        terms = {
            name: masked_mean(squared_distance(frozen[factor], generated.motion, batch["motion"]), mask)
            for name, factor in (("vertex", "vertex_factor"), ("lips", "lip_factor"))
        }
        weights = {"vertex": config.loss.vertex_weight, "lips": config.loss.lip_weight}
        if config.loss.codes_weight:
            terms |= self._code_terms(generated, frozen, batch)
            weights |= {"codes_top": config.loss.codes_weight, "codes_bottom": config.loss.codes_weight}
        return weighted_total(terms, weights), (model_state, terms)

    def _code_terms(self, generated: Generated, frozen: PyTree, batch: dict[str, Array]) -> dict[str, Array]:
        """Cross-entropy of both levels against the prior's encoding of the true motion, nats."""
        top, bottom = self.prior.apply(frozen["motion_prior"], batch["motion"], method=MotionPrior.encode)
        terms = {}
        for name, logits, indices, frames in (
            ("codes_top", generated.logits_top, top.indices, FRAMES_PER_TOP_CODE),
            ("codes_bottom", generated.logits_bottom, bottom.indices, FRAMES_PER_BOTTOM_CODE),
        ):
            mask = length_mask(batch["num_frames"] // frames, indices.shape[1])
            terms[name] = masked_mean(cross_entropy(logits, indices), mask)
        return terms

    def _training_identity(self, identity: Int[Array, " b"], key: KeyArray) -> Float[Array, "b i"]:
        """One-hot identities, a share of them replaced by the mean identity, as all unknown speakers are (-1)."""
        mean = identity_vector(self.config, None)[None]
        one_hot = jax.nn.one_hot(identity, self.config.model.num_identities)
        dropped = jax.random.bernoulli(key, self.config.identity_dropout_rate, identity.shape)
        return jnp.where((dropped | (identity < 0))[:, None], mean, one_hot)

    def predict(self, variables: PyTree, split: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Most likely motion and true motion of every clip of a split, `[t, 53]` each; mean identity."""
        frozen = super().frozen_variables()
        identity = identity_vector(self.config, None)
        num_frames = -(-self.config.data.max_clip_frames // FRAMES_PER_TOP_CODE) * FRAMES_PER_TOP_CODE

        @jax.jit
        def generate(variables, frozen, batch):
            rows = batch["audio"].shape[0]
            return self.model.apply(
                with_prior(variables, frozen["motion_prior"]),
                batch["audio"],
                batch["num_samples"],
                self.emotion(frozen, batch["audio"], batch["num_samples"]),
                jnp.broadcast_to(identity[None], (rows, identity.shape[0])),
                jax.random.split(jax.random.key(0), rows),  # unused at temperature 0
                num_codes=-(-batch["num_frames"] // FRAMES_PER_TOP_CODE),
                num_frames=num_frames,
                method=Generator.sample,
            ).motion

        pairs = []
        for batch in self.clips(split):
            inputs = {name: batch[name] for name in ("audio", "num_samples", "num_frames")}
            generated = np.asarray(generate(variables, frozen, inputs))
            for row, length in enumerate(batch["num_frames"]):
                if length:
                    pairs.append((generated[row, :length], batch["motion"][row, :length]))
        return pairs

    def evaluate(self, variables: PyTree, split: str) -> dict[str, float]:
        """Jaw correlation and lip error of the generated motion, beside the mean pose and shuffled audio.

        The mean pose is that of the training split. Shuffled audio holds each prediction against the true motion
        of another clip, over the frames that both have.
        """
        head = load_head(self.config.head)
        data = self.config.data
        pairs = self.predict(variables, split)
        mean_pose = mean_motion(data.data_dir, data.dataset, "train")
        errors = MotionErrors(head)
        jaws = {"generated": Correlation(), "shuffled": Correlation()}
        order = np.random.default_rng(0).permutation(len(pairs))
        for this, other in zip(order, np.roll(order, 1), strict=True):
            (generated, truth), (shuffled, _) = pairs[this], pairs[other]
            common = min(len(shuffled), len(truth))
            errors.add(truth, generated=generated, mean_pose=mean_pose[None])
            errors.add(truth[:common], shuffled=shuffled[:common])
            jaws["generated"].add(jaw_opening(generated), jaw_opening(truth))
            jaws["shuffled"].add(jaw_opening(shuffled[:common]), jaw_opening(truth[:common]))
        return {
            "jaw_correlation": jaws["generated"].value,
            "lip_error_mm": errors.lip_error_mm("generated"),
            "vertex_error_mm": errors.vertex_error_mm("generated"),
            "mean_pose_lip_error_mm": errors.lip_error_mm("mean_pose"),
            "mean_pose_vertex_error_mm": errors.vertex_error_mm("mean_pose"),
            "shuffled_audio_jaw_correlation": jaws["shuffled"].value,
            "shuffled_audio_lip_error_mm": errors.lip_error_mm("shuffled"),
            "num_clips": len(pairs),
        }
