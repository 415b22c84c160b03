"""Stage DEEPTalk: trains the generator, which predicts codes of the motion prior from speech, identity and emotion.

This is stage 1 of the paper (docs/method.md, section 4.1); `deeptalk_stage2.py` continues from its result.
"""

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from data_pipeline.records import open_split
from deeptalk_jax.assembly.build import identity_vector, with_prior
from deeptalk_jax.assembly.emotion_centroids import EmotionCentroids
from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.head.gram import distance_factor, gap_factor, squared_distance
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.classification import cross_entropy
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.generator import Generated, Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE, MotionPrior
from deeptalk_jax.stages.base import merged
from deeptalk_jax.stages.dee_statistics import clip_emotions
from deeptalk_jax.stages.generator_stage import GeneratorStage
from deeptalk_jax.stages.motion_prior import GAP_TERMS
from deeptalk_jax.training.optimiser import first_matches
from deeptalk_jax.types import Array, Gaussian

PyTree = Any


def linear_tau(step: Int[Array, ""], *, start: float, end: float, num_steps: int) -> Float[Array, ""]:
    """Returns the temperature of the Gumbel-softmax, which falls linearly from `start` to `end` over the run."""
    return start + (end - start) * jnp.clip(step / num_steps, 0.0, 1.0)


class DEEPTalkStage(GeneratorStage):
    """Trains the index predictor with the losses of stage 1."""

    name = "deeptalk"
    uses_masks = True

    def pretrained_params(self) -> PyTree:
        """Returns imported weights of the speech encoder."""
        return self.pretrained_speech()

    def constants(self) -> PyTree:
        """Returns the upstream variables, the factors of the distances, and the emotions that training conditions on.

        `clip_emotion` has DEE's Gaussians of the training clips and `named_emotion` those of the centroids; each exists
        if the config uses it.
        """
        head, loss = load_head(self.config.head), self.config.loss
        constants = {
            "vertex_factor": distance_factor(head),
            "lip_factor": distance_factor(head, head.masks["lips"]),
        }
        constants |= {
            name: gap_factor(head, gap) for name, gap in GAP_TERMS.items() if loss[f"{name}_weight"]
        }
        if self.config.emotion_context == "clip":
            constants["clip_emotion"] = self._clip_emotions()
        if self.config.emotion_label_rate:
            constants["named_emotion"] = self._named_emotions()
        return {**self.upstream_variables(), **constants}

    def _clip_emotions(self) -> Gaussian:
        """Returns DEE's Gaussians of the training clips and, if their loss is measured, of the validation clips."""
        dee = self.upstream["dee"].variables
        found = [clip_emotions(self.dee, dee, self.config.data, "train").gaussian]
        if self.config.validate_every_steps:
            # Without a validation split there is no validation loss, of which the trainer tells.
            with contextlib.suppress(UserError):
                found.append(clip_emotions(self.dee, dee, self.config.data, "validation").gaussian)
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def validation_batches(self, num_batches: int, **processes) -> Sequence[dict[str, np.ndarray]]:
        """Returns batches of fixed windows of the validation split, whose clips count on from those of training."""
        data = self.config.data
        num_clips = len(open_split(data.data_dir, data.dataset, "train", cache_bytes=0))
        batches = super().validation_batches(num_batches, **processes)
        return [{**batch, "clip": batch["clip"] + num_clips} for batch in batches]

    def _named_emotions(self) -> dict[str, np.ndarray]:
        """Returns the centroids of DEE.

        Raises:
            ConfigError: the model directory of DEE has no centroids.
        """
        statistics = self.upstream["dee"].statistics
        if not statistics:
            raise ConfigError(
                f"emotion_label_rate={self.config.emotion_label_rate}: the model directory of DEE has no emotion "
                "centroids; add them (python -m deeptalk_jax.tools.emotion_centroids) or give 0"
            )
        return {name: np.asarray(statistics[name]) for name in EmotionCentroids._fields}

    @cached_property
    def encoder_is_frozen(self) -> bool:
        """Whether `optimiser.frozen` matches all weights of the speech encoder."""
        params = jax.eval_shape(self.init, jax.random.key(0))["params"]
        frozen = first_matches("optimiser.frozen", params, self.config.optimiser.frozen)
        encoder = flatten_dict({"speech_encoder": params["speech_encoder"]}, sep="/")
        return encoder.keys() <= frozen.keys()

    def window_features(
        self, variables: PyTree, constants: PyTree, batch: dict[str, Array]
    ) -> dict[str, Array]:
        """Computes DEE's Gaussian of the speech and, if the speech encoder is frozen, its features.

        Returns:
            `dee_mean` and `dee_log_variance`, `[b, d]`, and with a frozen encoder `encoded_speech`, `[b, t, f]`.
        """
        if "clip_emotion" in constants:
            speech = jax.tree.map(lambda x: x[batch["clip"]], constants["clip_emotion"])
        else:
            speech = self.speech_emotion(constants, batch)
        features = {"dee_mean": speech.mean, "dee_log_variance": speech.log_variance}
        if self.encoder_is_frozen:
            encoded = self._encoded_speech(variables, constants, batch)
            features["encoded_speech"] = jax.lax.stop_gradient(encoded)
        return features

    def _encoded_speech(
        self,
        variables: PyTree,
        constants: PyTree,
        batch: dict[str, Array],
        dropout_key: KeyArray | None = None,
    ) -> Float[Array, "b t f"]:
        """Applies the speech encoder of the predictor, with dropout if there is a key for it."""
        return self.model.apply(
            with_prior(variables, constants["motion_prior"]),
            batch["audio"],
            batch["num_samples"],
            num_frames=batch["motion"].shape[1],
            train=dropout_key is not None,
            rngs=None if dropout_key is None else {"dropout": dropout_key},
            method=Generator.encode,
        )

    def loss_fn(self, params, model_state, constants, batch, step, key):
        """Computes the sum of the terms with a weight above 0."""
        loss, speech = self.config.loss, self.training_emotion(constants, batch, key)
        encoded = self.training_encoding(params, model_state, constants, batch, key)
        generated = self.generator(params, model_state, constants, batch, step, key, encoded)(speech.mean)
        terms = self.motion_terms(generated, constants, batch)
        terms |= self.viseme_terms(params, model_state, constants, batch, encoded)
        if loss.emotion_weight or loss.motion_emotion_weight:
            shown = self.motion_emotion(constants, generated.motion, batch["num_frames"])
            terms |= self.emotion_terms(shown, speech, constants, batch)
        return weighted_total(terms, self.weights(terms)), (model_state, terms)

    def training_emotion(self, constants: PyTree, batch: dict[str, Array], key: KeyArray) -> Gaussian:
        """Returns the Gaussians that the generator is conditioned on, `[b, d]`.

        A random share of the rows, `emotion_label_rate`, gets the centroid of the clip's label and intensity in place
        of the emotion of the speech. The generator then learns what a named emotion means: the speech alone tells it so
        little that the face regresses to the mean.
        """
        heard = Gaussian(batch["dee_mean"], batch["dee_log_variance"])
        if "named_emotion" not in constants:
            return heard
        named, label = constants["named_emotion"], (batch["emotion"], batch["intensity"])
        draw = partial(jax.random.bernoulli, jax.random.fold_in(key, 1), self.config.emotion_label_rate)
        known = (batch["emotion"] >= 0) & (batch["intensity"] >= 0) & (named["num_clips"][label] > 0)
        use_label = (draw_rows(draw, batch["emotion"].shape) & known)[:, None]
        return Gaussian(
            jnp.where(use_label, named["mean"][label], heard.mean),
            jnp.where(use_label, named["log_variance"][label], heard.log_variance),
        )

    def weights(self, terms: Iterable[str]) -> dict[str, float]:
        """Returns the weights of terms by name; both levels of codes share `loss.codes_weight`."""
        loss = self.config.loss
        shared = {"codes_top": "codes", "codes_bottom": "codes", "lips": "lip"}
        return {name: loss[f"{shared.get(name, name)}_weight"] for name in terms}

    def training_encoding(
        self,
        params: PyTree,
        model_state: PyTree,
        constants: PyTree,
        batch: dict[str, Array],
        key: KeyArray,
    ) -> Float[Array, "b t f"]:
        """Returns the features of the speech encoder in training; arguments as in `loss_fn`."""
        if self.encoder_is_frozen:
            return batch["encoded_speech"]
        dropout_key = jax.random.split(key, 3)[1]  # the one that `generator` applies to its other layers
        return self._encoded_speech(merged(params, model_state), constants, batch, dropout_key)

    def viseme_terms(
        self,
        params: PyTree,
        model_state: PyTree,
        constants: PyTree,
        batch: dict[str, Array],
        encoded: Float[Array, "b t f"],
    ) -> dict[str, Float[Array, ""]]:
        """Computes the cross-entropy (nats) of the viseme head over labelled frames, if it has a weight."""
        if not self.config.loss.viseme_weight:
            return {}
        variables = with_prior(merged(params, model_state), constants["motion_prior"])
        logits = self.model.apply(variables, encoded, method=Generator.viseme_logits)
        labels = batch["viseme"]
        return {"viseme": masked_mean(cross_entropy(logits, jnp.maximum(labels, 0)), labels >= 0)}

    def generator(
        self,
        params: PyTree,
        model_state: PyTree,
        constants: PyTree,
        batch: dict[str, Array],
        step: Array,
        key: KeyArray,
        encoded: Float[Array, "b t f"],
    ) -> Callable[[Float[Array, "b d"]], Generated]:
        """Returns a function from emotion vectors to generated motion of the batch.

        Every call uses the same encoded speech, identities and noise, so outputs differ by the emotion only. The
        arguments are those of `loss_fn`.
        """
        identity_key, dropout_key, sample_key = jax.random.split(key, 3)
        config, own = self.config, merged(params, model_state)
        identity = self._training_identity(batch["identity"], identity_key)
        variables = with_prior(own, constants["motion_prior"])

        def generate(emotion):
            return self.model.apply(
                variables,
                batch["audio"],
                batch["num_samples"],
                emotion,
                identity,
                num_frames=batch["motion"].shape[1],
                tau=linear_tau(step, start=config.tau_start, end=config.tau_end, num_steps=config.num_steps),
                train=True,
                encoded=encoded,
                rngs={"dropout": dropout_key, "sample": sample_key},
            )

        return generate

    def motion_terms(
        self, generated: Generated, constants: PyTree, batch: dict[str, Array]
    ) -> dict[str, Float[Array, ""]]:
        """Computes the vertex and lip errors and, if it has a weight, the error of the codes."""
        terms = {
            "vertex": self.surface_error(constants["vertex_factor"], generated.motion, batch),
            "lips": self.surface_error(constants["lip_factor"], generated.motion, batch),
        }
        terms |= {
            name: self.surface_error(constants[name], generated.motion, batch)
            for name in GAP_TERMS
            if name in constants
        }
        return terms | (
            self._code_terms(generated, constants, batch) if self.config.loss.codes_weight else {}
        )

    def emotion_terms(
        self, shown: Gaussian, speech: Gaussian, constants: PyTree, batch: dict[str, Array]
    ) -> dict[str, Float[Array, ""]]:
        """Computes the consistency with the speech and with the true motion, each if it has a weight.

        Args:
            shown: DEE's Gaussians of the generated motion.
            speech: DEE's Gaussians of the speech.
            constants: see `constants`.
            batch: see `batch_shapes`.
        """
        terms = {}
        if self.config.loss.emotion_weight:
            terms["emotion"] = self.consistency(constants, speech, shown)
        if self.config.loss.motion_emotion_weight:
            truth = self.motion_emotion(constants, batch["motion"], batch["num_frames"])
            terms["motion_emotion"] = self.consistency(constants, truth, shown)
        return terms

    def surface_error(
        self, factor: Float[Array, "r 599"], motion: Float[Array, "b t 53"], batch: dict[str, Array]
    ) -> Float[Array, ""]:
        """Returns the mean squared coordinate error against the true motion, m^2, of the vertices of a factor."""
        mask = length_mask(batch["num_frames"], motion.shape[1])
        return masked_mean(squared_distance(factor, motion, batch["motion"]), mask)

    def _code_terms(
        self, generated: Generated, constants: PyTree, batch: dict[str, Array]
    ) -> dict[str, Float[Array, ""]]:
        """Computes the cross-entropy (nats) of both levels against the prior's codes of the true motion."""
        top, bottom = self.prior.apply(constants["motion_prior"], batch["motion"], method=MotionPrior.encode)
        terms = {}
        for name, logits, indices, frames in (
            ("codes_top", generated.logits_top, top.indices, FRAMES_PER_TOP_CODE),
            ("codes_bottom", generated.logits_bottom, bottom.indices, FRAMES_PER_BOTTOM_CODE),
        ):
            mask = length_mask(batch["num_frames"] // frames, indices.shape[1])
            terms[name] = masked_mean(cross_entropy(logits, indices), mask)
        return terms

    def _training_identity(self, identity: Int[Array, " b"], key: KeyArray) -> Float[Array, "b i"]:
        """Returns one-hot identities; unknown speakers (-1) and a random share of the others get the mean identity."""
        mean = identity_vector(self.config, None)[None]
        one_hot = jax.nn.one_hot(identity, self.config.model.num_identities)
        draw = partial(jax.random.bernoulli, key, self.config.identity_dropout_rate)
        dropped = draw_rows(draw, identity.shape)
        return jnp.where((dropped | (identity < 0))[:, None], mean, one_hot)
