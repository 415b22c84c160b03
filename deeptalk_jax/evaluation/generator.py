"""Evaluation of generated motion: lips, emotion, dynamics of the upper face, and diversity.

Where they are informative, the same metrics are computed for three references: the true motion (`true_motion_`), the
constant mean pose of the training split (`mean_pose_`), and the motion generated for another clip (`shuffled_audio_`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.head.subset import head_subset
from deeptalk_jax.metrics.diversity import REGIONS, Diversity, diversity_factors
from deeptalk_jax.metrics.dynamics import DynamicsDeviation
from deeptalk_jax.metrics.motion import Correlation, MotionErrors, jaw_opening
from deeptalk_jax.metrics.retrieval import label_chance, label_recall
from deeptalk_jax.types import Array, Gaussian

NUM_SAMPLES = 3  # samples per clip, for the diversity
_DIVERSITY_CLIPS = 24  # maximum, because comparing two samples needs all vertices of the head


class GeneratedClip(NamedTuple):
    """A clip and the motions generated from its speech.

    Attributes:
        truth: true motion, `[t, 53]`.
        generated: most likely motion, `[t, 53]`.
        samples: motions sampled at temperature 1 on both levels of codes, `[n, t, 53]`.
        emotion: label of the clip.
        speech: DEE's Gaussian of the speech, `[d]`.
        heard: class of the emotion centroid nearest to the speech embedding; None if the model has no centroids.
        named: most likely motion when the labelled emotion is given by name instead of taken from the speech,
            `[t, 53]`; None if the model has no centroids.
        intensity: label of the intensity, from 0.
        visemes: `[t]` class of `types.VISEME_CLASSES` of each frame, or -1; None if unknown.
    """

    truth: np.ndarray
    generated: np.ndarray
    samples: np.ndarray
    emotion: int
    speech: Gaussian
    heard: int | None = None
    named: np.ndarray | None = None
    intensity: int = 0
    visemes: np.ndarray | None = None


class Judgement(NamedTuple):
    """Emotion of motions as estimated by the frozen networks.

    Attributes:
        emotion: FER's class of each motion, the one with the largest logit summed over frames, `[n]`.
        embedding: DEE's Gaussians of the motions, `[n, d]`.
    """

    emotion: np.ndarray
    embedding: Gaussian


# Judges padded motions `[b, t, 53]` of the lengths `[b]`.
Judge = Callable[[Float[np.ndarray, "b t d"], np.ndarray], Judgement]
# Computes the distance `[b, c]` between all pairs of a speech Gaussian and a motion Gaussian.
Distance = Callable[[Gaussian, Gaussian], Array]


def in_batches(judge: Callable[[np.ndarray, np.ndarray], Judgement], batch_size: int) -> Judge:
    """Returns a `Judge` that works in batches; the last batch is padded with copies of its last row."""

    def judge_all(motion, num_frames):
        found = []
        for start in range(0, len(motion), batch_size):
            rows = np.minimum(np.arange(start, start + batch_size), len(motion) - 1)
            found.append(jax.device_get(judge(motion[rows], num_frames[rows])))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(motion)], *found)

    return judge_all


def evaluate_clips(
    clips: Sequence[GeneratedClip],
    mean_pose: Float[np.ndarray, " d"],
    head: HeadModel,
    judge: Judge,
    distance: Distance,
) -> dict[str, float]:
    """Computes all metrics of a split.

    Args:
        clips: clips of the split, at least two.
        mean_pose: mean frame of the training split, `[53]`.
        head: head that the vertices are computed on.
        judge: estimates the emotion of motions.
        distance: distance that retrieval with DEE uses.
    """
    order = np.random.default_rng(0).permutation(len(clips))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    metrics = motion_metrics(clips, other, mean_pose, head)
    metrics |= emotion_metrics(clips, other, mean_pose, judge, distance)
    diversity = Diversity(diversity_factors(head))
    for clip in clips[:_DIVERSITY_CLIPS]:
        diversity.add(clip.samples)
    metrics |= {f"{region}_diversity_mm": diversity.mean_mm(region) for region in REGIONS}
    return metrics | {"num_clips": len(clips)}


def motion_metrics(
    clips: Sequence[GeneratedClip], other: np.ndarray, mean_pose: Float[np.ndarray, " d"], head: HeadModel
) -> dict[str, float]:
    """Computes vertex errors, the correlation of the jaw, and the dynamics of the upper face.

    `shuffled_audio_` compares the motion generated for clip `other[i]` with the truth of clip i, over the frames that
    both have.
    """
    errors, dynamics = MotionErrors(head), DynamicsDeviation(head)
    lip_errors = MotionErrors(head_subset(head, head.masks["lips"]))
    jaws = {"generated": Correlation(), "shuffled": Correlation()}
    for clip, shuffled in zip(clips, (clips[index].generated for index in other), strict=True):
        common = min(len(shuffled), len(clip.truth))
        shuffled, cut = shuffled[:common], clip.truth[:common]
        still = np.broadcast_to(mean_pose, clip.truth.shape)
        errors.add(clip.truth, generated=clip.generated, mean_pose=mean_pose[None])
        lip_errors.add(cut, shuffled=shuffled)
        dynamics.add(clip.truth, generated=clip.generated, mean_pose=still)
        dynamics.add(cut, shuffled=shuffled)
        jaws["generated"].add(jaw_opening(clip.generated), jaw_opening(clip.truth))
        jaws["shuffled"].add(jaw_opening(shuffled), jaw_opening(cut))
    deviation = "upper_face_dynamics_deviation_mm"
    return {
        "jaw_correlation": jaws["generated"].value,
        "lip_error_mm": errors.lip_error_mm("generated"),
        "vertex_error_mm": errors.vertex_error_mm("generated"),
        deviation: dynamics.value_mm("generated"),
        "mean_pose_lip_error_mm": errors.lip_error_mm("mean_pose"),
        "mean_pose_vertex_error_mm": errors.vertex_error_mm("mean_pose"),
        f"mean_pose_{deviation}": dynamics.value_mm("mean_pose"),
        "shuffled_audio_jaw_correlation": jaws["shuffled"].value,
        "shuffled_audio_lip_error_mm": lip_errors.lip_error_mm("shuffled"),
        f"shuffled_audio_{deviation}": dynamics.value_mm("shuffled"),
    }


def emotion_metrics(
    clips: Sequence[GeneratedClip],
    other: np.ndarray,
    mean_pose: Float[np.ndarray, " d"],
    judge: Judge,
    distance: Distance,
) -> dict[str, float]:
    """Computes the accuracy of FER on the motions, and retrieval by emotion between speech and motion.

    `heard_emotion_accuracy` is the accuracy of DEE on the speech (nearest emotion centroid), an approximate upper bound
    of the accuracy of FER on motion generated from that speech. `heard_emotion_agreement` is the share of clips for
    which FER's class of the motion equals DEE's class of the speech. `named_emotion_accuracy` is the accuracy of FER
    when the generator is given the labelled emotion by name.
    """
    num_frames = np.array([len(clip.truth) for clip in clips])
    length = num_frames.max()

    def judged(motions) -> Judgement:
        padded = [np.pad(motion, ((0, length - len(motion)), (0, 0))) for motion in motions]
        return judge(np.stack(padded), num_frames)

    generated = judged([clip.generated for clip in clips])
    found = {
        "": generated,
        "true_motion_": judged([clip.truth for clip in clips]),
        "mean_pose_": judged([np.broadcast_to(mean_pose, clip.truth.shape) for clip in clips]),
        "shuffled_audio_": Judgement(
            generated.emotion[other], Gaussian(*(x[other] for x in generated.embedding))
        ),
    }
    if clips[0].named is not None:
        found["named_"] = judged([clip.named for clip in clips])
    labels = np.array([clip.emotion for clip in clips])
    speech = Gaussian(*(np.stack(moment) for moment in zip(*(clip.speech for clip in clips), strict=True)))
    metrics = {"chance_emotion": label_chance(labels, labels)}
    for prefix, judgement in found.items():
        distances = np.asarray(distance(speech, judgement.embedding))
        if clips[0].heard is not None:
            heard = np.array([clip.heard for clip in clips])
            metrics["heard_emotion_accuracy"] = float(np.mean(heard == labels))
            metrics[f"{prefix}heard_emotion_agreement"] = float(np.mean(judgement.emotion == heard))
        metrics |= {
            f"{prefix}emotion_accuracy": float(np.mean(judgement.emotion == labels)),
            f"{prefix}speech_to_motion_r1": label_recall(distances, labels, labels),
            f"{prefix}motion_to_speech_r1": label_recall(distances.T, labels, labels),
        }
    return metrics
