"""What a generator's motion is worth: lips, emotion, liveliness and diversity, beside controls.

Every number is also measured of the true motion (`true_motion_`), of the mean pose of the training split held still
(`mean_pose_`), and of the motion generated for another clip (`shuffled_audio_`), where that says something.
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

NUM_SAMPLES = 3  # of every clip, for its diversity
_DIVERSITY_CLIPS = 24  # at most, whose samples are compared; every pair costs the vertices of the whole head


class GeneratedClip(NamedTuple):
    """A clip with what a generator made of its speech.

    Attributes:
        truth: `[t, 53]` true motion.
        generated: `[t, 53]` most likely motion.
        samples: `[n, t, 53]` at temperature 1 of both levels of codes.
        emotion: label of the clip.
        speech: DEE's Gaussian of the speech, `[d]`.
        heard: emotion that DEE hears in it: that of the nearest centroid; None where the model has no centroids.
        named: `[t, 53]` most likely motion where the clip's emotion is asked for by name, in place of the speech's;
            None where the model has no centroids.
    """

    truth: np.ndarray
    generated: np.ndarray
    samples: np.ndarray
    emotion: int
    speech: Gaussian
    heard: int | None = None
    named: np.ndarray | None = None


class Judgement(NamedTuple):
    """What the frozen networks see in motions.

    Attributes:
        emotion: `[n]` emotion that FER sees in each: the class of the largest sum of the frames' logits.
        embedding: DEE's Gaussians, `[n, d]`.
    """

    emotion: np.ndarray
    embedding: Gaussian


# Padded motions `[b, t, 53]` and their lengths `[b]` to the judgement of them.
Judge = Callable[[Float[np.ndarray, "b t d"], np.ndarray], Judgement]
# Gaussians of the speech and of the motion to the distance of all pairs, `[b, c]`.
Distance = Callable[[Gaussian, Gaussian], Array]


def in_batches(judge: Callable[[np.ndarray, np.ndarray], Judgement], batch_size: int) -> Judge:
    """Judges so many motions at a time; the last batch is filled up with copies of its last row."""

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
    """All metrics of a split.

    Args:
        clips: its clips, at least two.
        mean_pose: `[53]` of the training split.
        head: that wears the motions.
        judge: see `Judge`.
        distance: by which DEE retrieves.
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
    """Errors of the surface, agreement of the jaw, and dynamics of the upper face.

    Shuffled audio holds the motion of clip `other[i]` against the truth of clip i, over the frames that both have.
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
    """Share of motions in which FER sees the clip's emotion, and retrieval by emotion between speech and motion.

    `heard_emotion_accuracy` is the share of clips in whose speech DEE hears their emotion: about the most that FER can
    see in what is generated from it. `heard_emotion_agreement` is the share in which FER sees what DEE has heard.
    `named_emotion_accuracy` is the share in which FER sees the clip's emotion where the generator is told its name.
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
