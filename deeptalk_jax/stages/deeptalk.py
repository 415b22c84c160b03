"""Stage DEEPTalk: codes of the motion prior from speech, identity and emotion (SPEC section 4, stage 1)."""

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array as KeyArray
from jaxtyping import Float, Int

from data_pipeline.statistics import mean_motion
from deeptalk_jax.assembly.build import (
    build_dee,
    build_fer,
    build_generator,
    identity_vector,
    init_predictor,
    with_prior,
)
from deeptalk_jax.assembly.emotion_centroids import named_emotions, nearest_emotion
from deeptalk_jax.collectives import draw_rows
from deeptalk_jax.evaluation.emotion_space import retrieval_distance
from deeptalk_jax.evaluation.generator import (
    NUM_SAMPLES,
    GeneratedClip,
    Judgement,
    evaluate_clips,
    in_batches,
)
from deeptalk_jax.evaluation.page import Evaluation
from deeptalk_jax.head.gram import distance_factor, squared_distance
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.classification import cross_entropy
from deeptalk_jax.losses.consistency import emotion_consistency
from deeptalk_jax.losses.reduce import masked_mean, weighted_total
from deeptalk_jax.masks import length_mask
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.models.generator import Generated, Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE, MotionPrior
from deeptalk_jax.stages.base import Stage, merged
from deeptalk_jax.training.optimiser import first_matches
from deeptalk_jax.types import Array, Gaussian

PyTree = Any


def linear_tau(step: Int[Array, ""], *, start: float, end: float, num_steps: int) -> Float[Array, ""]:
    """Temperature of the Gumbel-softmax, falling linearly over the run."""
    return start + (end - start) * jnp.clip(step / num_steps, 0.0, 1.0)


class DEEPTalkStage(Stage):
    """Trains the index predictor; prior, DEE and FER are frozen."""

    name = "deeptalk"
    upstream_parts = MappingProxyType({"dee": ("fer", "dee"), "motion_prior": ("motion_prior",)})

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        prior_config = self.upstream["motion_prior"].config
        self.model = build_generator(config, prior_config)
        self.prior = self.model.prior
        self.fer = build_fer(self.upstream["fer"].config)
        self.dee = build_dee(self.upstream["dee"].config, config.model.dtype)

    def init(self, key: KeyArray) -> PyTree:
        """Variables of the predictor before training."""
        return init_predictor(self.model, self.upstream["dee"].config.model.embedding_dim, key)

    def pretrained_params(self) -> PyTree:
        """Imported weights of the speech encoder."""
        return self.pretrained_speech()

    def constants(self) -> PyTree:
        """Upstream variables and the factors of the distances of all vertices and of the lips."""
        head = load_head(self.config.head)
        factors = {
            "vertex_factor": distance_factor(head),
            "lip_factor": distance_factor(head, head.masks["lips"]),
        }
        return {**self.upstream_variables(), **factors}

    def upstream_variables(self) -> PyTree:
        """Variables of the upstream parts that are read in training."""
        return super().constants()

    @cached_property
    def encoder_is_frozen(self) -> bool:
        """Whether `optimiser.frozen` holds every weight of the speech encoder."""
        params = jax.eval_shape(self.init, jax.random.key(0))["params"]
        frozen = first_matches("optimiser.frozen", params, self.config.optimiser.frozen)
        encoder = flatten_dict({"speech_encoder": params["speech_encoder"]}, sep="/")
        return encoder.keys() <= frozen.keys()

    def window_features(self, variables: PyTree, frozen: PyTree, batch: dict[str, Array]) -> dict[str, Array]:
        """What the frozen networks make of the sound, by the names under which a batch may bring it along.

        Args:
            variables: of the predictor; only a frozen speech encoder is read.
            frozen: see `constants`.
            batch: see `batch_shapes`.
        """
        speech = self.speech_emotion(frozen, batch)
        features = {"dee_mean": speech.mean, "dee_log_variance": speech.log_variance}
        if self.encoder_is_frozen:
            features["encoded_speech"] = self.encoded_speech(variables, frozen, batch)
        return features

    def encoded_speech(
        self, variables: PyTree, frozen: PyTree, batch: dict[str, Array], dropout_key: KeyArray | None = None
    ) -> Float[Array, "b t f"]:
        """Features of the speech encoder, or those that the batch brings along; one that is frozen has no dropout."""
        if "encoded_speech" in batch:
            return batch["encoded_speech"]
        learns = not self.encoder_is_frozen
        features = self.model.apply(
            with_prior(variables, frozen["motion_prior"]),
            batch["audio"],
            batch["num_samples"],
            num_frames=batch["motion"].shape[1],
            train=learns,
            rngs={"dropout": dropout_key} if learns else None,
            method=Generator.encode,
        )
        return features if learns else jax.lax.stop_gradient(features)

    def speech_emotion(self, frozen: PyTree, batch: dict[str, Array]) -> Gaussian:
        """DEE's Gaussians of the speech, `[b, d]`, from the batch where it brings them along."""
        if "dee_mean" in batch:
            return Gaussian(batch["dee_mean"], batch["dee_log_variance"])
        return self.dee.apply(frozen["dee"], batch["audio"], batch["num_samples"], method=DEE.embed_audio)

    def motion_emotion(
        self, frozen: PyTree, motion: Float[Array, "b t 53"], num_frames: Int[Array, " b"]
    ) -> Gaussian:
        """DEE's Gaussians of motion, `[b, d]`, in evaluation mode, differentiable in the motion."""
        features = self.fer.apply(frozen["fer"], motion, method=FER.features)
        return self.dee.apply(frozen["dee"], features, num_frames, method=DEE.embed_motion)

    def consistency(self, frozen: PyTree, a: Gaussian, b: Gaussian) -> Float[Array, ""]:
        """Mean emotion consistency of matching rows, of the kind that the config names."""
        scale, shift = (frozen["dee"]["params"][name] for name in ("scale", "shift"))
        return masked_mean(emotion_consistency(self.config.loss.emotion_consistency, a, b, scale, shift))

    def loss_fn(self, params, model_state, frozen, batch, step, key):
        """Sum of the terms that have a weight."""
        loss, speech = self.config.loss, self.speech_emotion(frozen, batch)
        generated = self.generator(params, model_state, frozen, batch, step, key)(speech.mean)
        terms = self.motion_terms(generated, frozen, batch)
        if loss.emotion_weight or loss.motion_emotion_weight:
            shown = self.motion_emotion(frozen, generated.motion, batch["num_frames"])
            terms |= self.emotion_terms(shown, speech, frozen, batch)
        return weighted_total(terms, self.weights(terms)), (model_state, terms)

    def weights(self, terms: Iterable[str]) -> dict[str, float]:
        """Weights of terms by name; both levels of codes have one."""
        loss = self.config.loss
        shared = {"codes_top": "codes", "codes_bottom": "codes", "lips": "lip"}
        return {name: loss[f"{shared.get(name, name)}_weight"] for name in terms}

    def generator(
        self,
        params: PyTree,
        model_state: PyTree,
        frozen: PyTree,
        batch: dict[str, Array],
        step: Array,
        key: KeyArray,
    ) -> Callable[[Float[Array, "b d"]], Generated]:
        """Emotion vectors to generated motion, by the same speech, identities and noise every time.

        The speech is encoded here, once for all of them.
        """
        identity_key, dropout_key, sample_key = jax.random.split(key, 3)
        config = self.config
        identity = self._training_identity(batch["identity"], identity_key)
        variables = with_prior(merged(params, model_state), frozen["motion_prior"])
        encoded = self.encoded_speech(merged(params, model_state), frozen, batch, dropout_key)

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
        self, generated: Generated, frozen: PyTree, batch: dict[str, Array]
    ) -> dict[str, Float[Array, ""]]:
        """Vertex and lip error against the true motion, and where it has a weight the error of the codes."""
        terms = {
            "vertex": self.surface_error(frozen["vertex_factor"], generated.motion, batch),
            "lips": self.surface_error(frozen["lip_factor"], generated.motion, batch),
        }
        return terms | (self._code_terms(generated, frozen, batch) if self.config.loss.codes_weight else {})

    def emotion_terms(
        self, shown: Gaussian, speech: Gaussian, frozen: PyTree, batch: dict[str, Array]
    ) -> dict[str, Float[Array, ""]]:
        """Consistency of the generated motion with the speech and with the true motion, those that have a weight.

        Args:
            shown: DEE's Gaussians of the generated motion.
            speech: of the speech.
            frozen: see `constants`.
            batch: see `batch_shapes`.
        """
        terms = {}
        if self.config.loss.emotion_weight:
            terms["emotion"] = self.consistency(frozen, speech, shown)
        if self.config.loss.motion_emotion_weight:
            truth = self.motion_emotion(frozen, batch["motion"], batch["num_frames"])
            terms["motion_emotion"] = self.consistency(frozen, truth, shown)
        return terms

    def surface_error(
        self, factor: Float[Array, "r 599"], motion: Float[Array, "b t 53"], batch: dict[str, Array]
    ) -> Float[Array, ""]:
        """Mean squared coordinate error against the true motion, m^2; the factor decides of which vertices."""
        mask = length_mask(batch["num_frames"], motion.shape[1])
        return masked_mean(squared_distance(factor, motion, batch["motion"]), mask)

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
        draw = partial(jax.random.bernoulli, key, self.config.identity_dropout_rate)
        dropped = draw_rows(draw, identity.shape)
        return jnp.where((dropped | (identity < 0))[:, None], mean, one_hot)

    def predict(self, variables: PyTree, split: str) -> list[GeneratedClip]:
        """Most likely motion and samples of every clip of a split, with the mean identity, beside the truth."""
        identity = identity_vector(self.config, None)
        num_frames = -(-self.config.data.max_clip_frames // FRAMES_PER_TOP_CODE) * FRAMES_PER_TOP_CODE

        @jax.jit
        def generate(variables, frozen, batch, asked):
            rows = batch["audio"].shape[0]
            speech = self.speech_emotion(frozen, batch)

            def sample(emotion, temperature, keys):
                return self.model.apply(
                    with_prior(variables, frozen["motion_prior"]),
                    batch["audio"],
                    batch["num_samples"],
                    emotion,
                    jnp.broadcast_to(identity[None], (rows, identity.shape[0])),
                    keys,
                    num_codes=-(-batch["num_frames"] // FRAMES_PER_TOP_CODE),
                    num_frames=num_frames,
                    temperature_top=temperature,
                    temperature_bottom=temperature,
                    method=Generator.sample,
                ).motion

            temperatures = jnp.minimum(jnp.arange(1.0 + NUM_SAMPLES), 1.0)  # 0 for the most likely, then 1
            keys = jax.random.split(jax.random.key(0), (len(temperatures), rows))
            motions = jax.vmap(partial(sample, speech.mean))(temperatures, keys)
            named = None if asked is None else sample(asked, temperatures[0], keys[0])
            return motions, named, speech

        clips, frozen, centroids = [], self.upstream_variables(), self.upstream["dee"].statistics
        vectors = named_emotions(centroids) if centroids else None
        for batch in self.clips(split):
            inputs = {name: batch[name] for name in ("audio", "num_samples", "num_frames")}
            asked = None if vectors is None else vectors[batch["emotion"]]
            motions, named, speech = jax.device_get(generate(variables, frozen, inputs, asked))
            heard = nearest_emotion(centroids, speech.mean) if centroids else None
            for row, length in enumerate(batch["num_frames"]):
                if length:
                    clips.append(
                        GeneratedClip(
                            truth=batch["motion"][row, :length],
                            generated=motions[0, row, :length],
                            samples=motions[1:, row, :length],
                            emotion=int(batch["emotion"][row]),
                            speech=Gaussian(*(moment[row] for moment in speech)),
                            heard=None if heard is None else int(heard[row]),
                            named=None if named is None else named[row, :length],
                        )
                    )
        return clips

    def evaluate(self, variables: PyTree, split: str) -> Evaluation:
        """Lips, emotion and liveliness of the generated motion, beside controls; see `generator_evaluation`."""
        data, frozen = self.config.data, self.upstream_variables()

        @jax.jit
        def judge(frozen, motion, num_frames):
            logits = self.fer.apply(frozen["fer"], motion)
            mask = length_mask(num_frames, motion.shape[1])
            of_clips = jnp.sum(logits * mask[..., None], axis=1)
            return Judgement(jnp.argmax(of_clips, axis=-1), self.motion_emotion(frozen, motion, num_frames))

        metrics = evaluate_clips(
            self.predict(variables, split),
            mean_motion(data.data_dir, data.dataset, "train"),
            load_head(self.config.head),
            in_batches(partial(judge, frozen), data.eval_batch_size),
            partial(retrieval_distance, self.upstream["dee"].config.loss),
        )
        return Evaluation(metrics, {}, tuple)
