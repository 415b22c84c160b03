"""Base class of the generator's stages: the frozen networks, and what the generated motion is worth.

`deeptalk.py` adds the losses of stage 1 and `deeptalk_stage2.py` those of stage 2.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
from deeptalk_jax.evaluation.emotion_space import retrieval_distance
from deeptalk_jax.evaluation.face import (
    GENERATED,
    NEUTRAL,
    PRIOR,
    TRUTH,
    FaceClip,
    FaceReport,
    face_report,
)
from deeptalk_jax.evaluation.face_animation import named_faces, reconstructions
from deeptalk_jax.evaluation.face_chart import draw_face
from deeptalk_jax.evaluation.generator import (
    NUM_SAMPLES,
    GeneratedClip,
    Judgement,
    evaluate_clips,
    in_batches,
)
from deeptalk_jax.evaluation.result import Evaluation
from deeptalk_jax.head.load import load_head
from deeptalk_jax.losses.consistency import emotion_consistency
from deeptalk_jax.losses.reduce import masked_mean
from deeptalk_jax.masks import length_mask
from deeptalk_jax.metrics.face_points import FacePoints
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.fer import FER
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.stages.base import Stage
from deeptalk_jax.types import Array, Gaussian

PyTree = Any


class GeneratorStage(Stage):
    """A stage that trains the index predictor; the motion prior, DEE and FER are constants."""

    def __init__(self, config, upstream=None):
        super().__init__(config, upstream)
        prior_config = self.upstream["motion_prior"].config
        self.model = build_generator(config, prior_config)
        self.prior = self.model.prior
        self.fer = build_fer(self.upstream["fer"].config)
        self.dee = build_dee(self.upstream["dee"].config, config.model.dtype)

    def init(self, key: KeyArray) -> PyTree:
        """Returns initial variables of the index predictor."""
        return init_predictor(self.model, self.upstream["dee"].config.model.embedding_dim, key)

    def speech_emotion(self, constants: PyTree, batch: dict[str, Array]) -> Gaussian:
        """Returns DEE's Gaussians of the speech, `[b, d]`."""
        return self.dee.apply(constants["dee"], batch["audio"], batch["num_samples"], method=DEE.embed_audio)

    def motion_emotion(
        self, constants: PyTree, motion: Float[Array, "b t 53"], num_frames: Int[Array, " b"]
    ) -> Gaussian:
        """Returns DEE's Gaussians of motion, `[b, d]`, in evaluation mode, differentiable in the motion."""
        features = self.fer.apply(constants["fer"], motion, method=FER.features)
        return self.dee.apply(constants["dee"], features, num_frames, method=DEE.embed_motion)

    def consistency(self, constants: PyTree, a: Gaussian, b: Gaussian) -> Float[Array, ""]:
        """Returns the mean emotion consistency of matching rows, of the kind `loss.emotion_consistency`."""
        scale, shift = (constants["dee"]["params"][name] for name in ("scale", "shift"))
        return masked_mean(emotion_consistency(self.config.loss.emotion_consistency, a, b, scale, shift))

    def predict(
        self, variables: PyTree, split: str, *, num_samples: int = NUM_SAMPLES
    ) -> list[GeneratedClip]:
        """Generates the most likely motion and samples of each clip of a split, with the mean identity."""
        identity = identity_vector(self.config, None)
        num_frames = -(-self.config.data.max_clip_frames // FRAMES_PER_TOP_CODE) * FRAMES_PER_TOP_CODE

        @jax.jit
        def generate(variables, constants, batch, asked):
            rows = batch["audio"].shape[0]
            speech = self.speech_emotion(constants, batch)

            def sample(emotion, temperature, keys):
                return self.model.apply(
                    with_prior(variables, constants["motion_prior"]),
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

            temperatures = jnp.minimum(jnp.arange(1.0 + num_samples), 1.0)  # 0 takes the most likely codes
            keys = jax.random.split(jax.random.key(0), (len(temperatures), rows))
            motions = jax.vmap(partial(sample, speech.mean))(temperatures, keys)
            named = None if asked is None else sample(asked, temperatures[0], keys[0])
            return motions, named, speech

        clips, constants, centroids = [], self.upstream_variables(), self.upstream["dee"].statistics
        vectors = named_emotions(centroids) if centroids else None
        for batch in self.clips(split):
            inputs = {name: batch[name] for name in ("audio", "num_samples", "num_frames")}
            asked = None if vectors is None else vectors[batch["emotion"]]
            motions, named, speech = jax.device_get(generate(variables, constants, inputs, asked))
            heard = nearest_emotion(centroids, speech.mean) if centroids else None
            for row in np.flatnonzero(batch["valid"]):
                length = batch["num_frames"][row]
                clips.append(
                    GeneratedClip(
                        truth=batch["motion"][row, :length],
                        generated=motions[0, row, :length],
                        samples=motions[1:, row, :length],
                        emotion=int(batch["emotion"][row]),
                        speech=Gaussian(*(moment[row] for moment in speech)),
                        heard=None if heard is None else int(heard[row]),
                        named=None if named is None else named[row, :length],
                        intensity=int(batch["intensity"][row]),
                        visemes=batch["viseme"][row, :length],
                    )
                )
        return clips

    def evaluate(self, variables: PyTree, split: str) -> Evaluation:
        """Measures lips, emotion and dynamics of the generated motion; see `evaluation.generator`."""
        data, constants = self.config.data, self.upstream_variables()

        @jax.jit
        def judge(constants, motion, num_frames):
            logits = self.fer.apply(constants["fer"], motion)
            mask = length_mask(num_frames, motion.shape[1])
            of_clips = jnp.sum(logits * mask[..., None], axis=1)
            return Judgement(
                jnp.argmax(of_clips, axis=-1), self.motion_emotion(constants, motion, num_frames)
            )

        clips = self.predict(variables, split)
        metrics = evaluate_clips(
            clips,
            mean_motion(data.data_dir, data.dataset, "train"),
            load_head(self.config.head),
            in_batches(partial(judge, constants), data.eval_batch_size),
            partial(retrieval_distance, self.upstream["dee"].config.loss),
        )
        points = FacePoints(load_head(self.config.head))
        faces, report = self.measure_faces(variables, split, clips, points)
        metrics |= report.metrics(GENERATED)
        return Evaluation(metrics, report._asdict(), partial(draw_face, faces, report, points))

    def measure_faces(
        self, variables: PyTree, split: str, clips: Sequence[GeneratedClip], points: FacePoints
    ) -> tuple[list[FaceClip], FaceReport]:
        """Measures what the faces of `predict` say, next to the truth and to the reconstruction of the prior."""
        prior, centroids = self.upstream["motion_prior"], self.upstream["dee"].statistics
        rebuilt = reconstructions(
            self.prior,
            prior.variables,
            [clip.truth for clip in clips],
            prior.config.data.window_frames,
        )
        faces = [
            FaceClip(
                {TRUTH: clip.truth, PRIOR: motion, GENERATED: clip.generated},
                clip.emotion,
                clip.intensity,
                clip.visemes,
            )
            for clip, motion in zip(clips, rebuilt, strict=True)
        ]
        named = None
        if centroids:
            named = named_faces(
                self.model,
                with_prior(variables, prior.variables),
                self.clips(split),
                named_emotions(centroids)[NEUTRAL],
                centroids["mean"],
                identity_vector(self.config, None),
            )
        return faces, face_report(faces, named, points)
