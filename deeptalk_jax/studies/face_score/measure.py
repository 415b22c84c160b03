"""Animates the clips of a split for `evaluation.face`, with the emotion of the speech and with named emotions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipeline.loader import clip_loader
from deeptalk_jax.assembly.build import identity_vector
from deeptalk_jax.assembly.emotion_centroids import named_emotions
from deeptalk_jax.evaluation import face
from deeptalk_jax.inference.trained_generator import TrainedGenerator, load_generator
from deeptalk_jax.metrics.motion import Correlation, MotionErrors, jaw_opening
from deeptalk_jax.head.load import load_head
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator
from deeptalk_jax.models.motion_prior import FRAMES_PER_TOP_CODE
from deeptalk_jax.types import EMOTIONS, EXPRESSION_DIM, NUM_INTENSITIES, SAMPLES_PER_FRAME

_STEP_FRAMES = 32  # batches are padded to multiples of this number of frames


def score_model(directory: str, data_dir: str | None, split: str, num_clips: int) -> dict[str, Any]:
    """Returns the table of a model directory; see the module docstring of `__main__`."""
    trained = load_generator(directory)
    data = trained.config.data
    batches = clip_loader(
        data_dir or data.data_dir,
        data.dataset,
        split,
        max_frames=data.max_clip_frames,
        batch_size=data.eval_batch_size,
        limit=num_clips,
    )
    animate = _animator(trained)
    clips, neutral, shown = [], [], []
    for batch in batches:
        found, named = animate(batch)
        clips += found
        for rows in named:
            neutral.append(rows[0])
            shown.append(rows[1:].reshape(len(EMOTIONS), NUM_INTENSITIES, EXPRESSION_DIM))
    return table(clips, face.NamedFaces(np.stack(neutral), np.stack(shown)), load_head(trained.head))


def table(clips, named: face.NamedFaces, head) -> dict[str, Any]:
    truth = face.true_expressions(clips)
    gains = {"named": face.named_table(named, truth)}
    for name in ("generated", "prior"):
        gains["heard" if name == "generated" else name] = face.gain_table(
            face.expressions(clips, name), truth
        )
    measures = face.speech_and_eyes(clips, head)
    errors, jaw = MotionErrors(head), Correlation()
    for clip in clips:
        errors.add(clip.motions["truth"], generated=clip.motions["generated"], prior=clip.motions["prior"])
        jaw.add(jaw_opening(clip.motions["generated"]), jaw_opening(clip.motions["truth"]))
    for name in ("generated", "prior"):
        measures[name]["lip_error_mm"] = errors.lip_error_mm(name)
        for key in ("brow", "lid"):
            measures[name][f"{key}_jitter_ratio"] = (
                measures[name][f"{key}_bend_mm"] / measures["truth"][f"{key}_bend_mm"]
            )
    measures["generated"]["jaw_correlation"] = jaw.value
    return {"gain": gains, "motions": measures, "num_clips": len(clips)}


def _animator(trained: TrainedGenerator):
    """Returns a function from batches to clips and the named mean expressions of their neutral sentences."""
    window = trained.config.data.window_frames
    identity = identity_vector(trained.config, None)
    centroids = trained.dee_statistics
    vectors = np.concatenate(
        [
            named_emotions(centroids)[face.NEUTRAL][None],
            centroids["mean"].reshape(-1, centroids["mean"].shape[-1]),
        ]
    ).astype(np.float32)
    known = np.concatenate([[True], centroids["num_clips"].reshape(-1) > 0])

    def sample(variables, batch, emotion):
        num_frames = batch["audio"].shape[1] // SAMPLES_PER_FRAME
        rows = len(batch["audio"])
        return trained.model.apply(
            variables,
            batch["audio"],
            batch["num_samples"],
            emotion,
            jnp.broadcast_to(identity[None], (rows, identity.shape[0])),
            jax.random.split(jax.random.key(0), rows),
            num_codes=-(-batch["num_frames"] // FRAMES_PER_TOP_CODE),
            num_frames=num_frames,
            method=Generator.sample,
        ).motion

    @jax.jit
    def heard(variables, dee_variables, batch):
        speech = trained.dee.apply(
            dee_variables, batch["audio"], batch["num_samples"], method=DEE.embed_audio
        )
        return sample(variables, batch, speech.mean)

    @jax.jit
    def named(variables, batch):
        rows = len(batch["audio"])
        valid = jnp.arange(batch["audio"].shape[1] // SAMPLES_PER_FRAME) < batch["num_frames"][:, None]

        def mean(vector):
            motion = sample(variables, batch, jnp.broadcast_to(vector[None], (rows, len(vector))))
            masked = jnp.where(valid[..., None], motion[..., :EXPRESSION_DIM], 0.0)
            return masked.sum(axis=1) / batch["num_frames"][:, None]

        return jax.lax.map(mean, vectors)

    @jax.jit
    def reconstruct(variables, windows):
        prior = {name: collection["prior"] for name, collection in variables.items() if "prior" in collection}
        return jax.vmap(lambda one: trained.model.prior.apply(prior, one[None]).motion[0])(windows)

    def animate(batch):
        num_frames = -(-int(batch["num_frames"].max()) // _STEP_FRAMES) * _STEP_FRAMES
        inputs = {name: batch[name] for name in ("num_samples", "num_frames")}
        inputs["audio"] = batch["audio"][:, : num_frames * SAMPLES_PER_FRAME]
        made = np.asarray(heard(trained.variables, trained.dee_variables, inputs))
        clips = []
        for row in np.flatnonzero(batch["valid"]):
            length = batch["num_frames"][row]
            truth = batch["motion"][row, :length]
            motions = {
                "truth": truth,
                "prior": reconstructed(truth),
                "generated": made[row, :length],
            }
            clips.append(
                face.FaceClip(
                    motions,
                    int(batch["emotion"][row]),
                    int(batch["intensity"][row]),
                    batch["viseme"][row, :length],
                )
            )
        rows = np.flatnonzero(batch["valid"] & (batch["emotion"] == face.NEUTRAL))
        if not len(rows):
            return clips, np.zeros((0, len(vectors), EXPRESSION_DIM))
        padded = np.resize(rows, 4 * -(-len(rows) // 4))
        means = np.array(named(trained.variables, {name: value[padded] for name, value in inputs.items()}))
        means[~known] = np.nan
        return clips, np.moveaxis(means, 0, 1)[: len(rows)]

    def reconstructed(truth):
        """Encodes and decodes whole windows; the last one ends with the clip and overlaps the one before."""
        starts = [*range(0, len(truth) - window, window), max(len(truth) - window, 0)]
        windows = np.stack([truth[start : start + window] for start in starts])
        most = -(-trained.config.data.max_clip_frames // window)
        padded = np.pad(windows, ((0, most - len(windows)), (0, 0), (0, 0)))
        found = np.asarray(reconstruct(trained.variables, padded))
        whole = np.zeros_like(truth)
        for start, values in zip(starts, found, strict=False):
            whole[start : start + window] = values
        return whole

    return animate
