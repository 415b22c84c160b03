"""Emotion classes of speech: which named emotion DEE recognises in a sound, as a whole and in every second.

DEE embeds speech without naming its emotion. The centroids of the named emotions (`EmotionCentroids`) turn the Gaussian
into class probabilities. DEEPTalk publishes no such classifier; docs/emotion_control.md reports how accurate it is.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.inference.animator import Animator, AudioPiece
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.emotion_blend import EmotionTable
from deeptalk_jax.inference.pipeline import embed_clips, run_in_batches
from deeptalk_jax.inference.windows import SHORTEST_BUCKET_FRAMES
from deeptalk_jax.losses.distances import closed_form_sampled_distance
from deeptalk_jax.types import AUDIO_RATE_HZ, EMOTIONS, SAMPLES_PER_FRAME, Gaussian

# Sound that a second is judged by: 2.56 s. It is the window of the training of DEE; DEE does not know shorter clips.
_WINDOW_SAMPLES = SHORTEST_BUCKET_FRAMES * SAMPLES_PER_FRAME


class EmotionSecond(NamedTuple):
    """Emotion of one second of a sound.

    Attributes:
        start_s: start in seconds.
        end_s: end in seconds, the end of the sound for the last one.
        probabilities: probability of each name, in the order of `types.EMOTIONS`; they sum to 1.
    """

    start_s: float
    end_s: float
    probabilities: dict[str, float]

    @property
    def name(self) -> str:
        """The most probable emotion."""
        return max(self.probabilities, key=self.probabilities.get)


class EmotionClasses(NamedTuple):
    """Emotion of a sound.

    Attributes:
        probabilities: probability of each name for the whole sound, in the order of `types.EMOTIONS`; they sum to 1.
        seconds: the same for every second, judged by the 2.56 s of sound around its middle.
    """

    probabilities: dict[str, float]
    seconds: list[EmotionSecond]

    @property
    def name(self) -> str:
        """The most probable emotion of the whole sound."""
        return max(self.probabilities, key=self.probabilities.get)


def class_probabilities(speech: Gaussian, centroids: Gaussian, scale: float) -> Float[np.ndarray, "n e"]:
    """Returns `softmax_e(-scale * distance(speech, centroid_e))`, with the closed-form sampled distance.

    The match logit of DEE is `-scale * distance + shift` (docs/method.md, section 2); the shift is the same for all
    emotions and cancels. The probabilities are not calibrated.

    Args:
        speech: Gaussians `[n, d]`.
        centroids: Gaussians `[e, d]` of the emotions.
        scale: learned scale of DEE's match logit.
    """
    distance = closed_form_sampled_distance(speech, centroids)
    return np.asarray(jax.nn.softmax(-scale * distance, axis=-1))


def classify_clip(animator: Animator, table: EmotionTable, clip: Clip, batch_size: int) -> EmotionClasses:
    """Classifies a clip and every second of it.

    An emotion that the model was trained without has probability 0.

    Args:
        animator: runs DEE's audio tower.
        table: centroids of the named emotions.
        clip: speech of any length.
        batch_size: largest number of 10 s pieces in one compiled call.
    """
    pieces = _pieces_of_seconds(clip)
    rows = [(SHORTEST_BUCKET_FRAMES, piece) for piece in pieces]
    seconds = dict(run_in_batches(animator.embed, rows, batch_size))
    gaussians = [
        *embed_clips(animator, [clip], batch_size),
        *(seconds[number] for number in range(len(rows))),
    ]
    for gaussian in gaussians:
        if isinstance(gaussian, Exception):
            raise gaussian
    names = table.known
    centroids = _stacked([table.gaussian(name) for name in names])
    whole, *others = class_probabilities(_stacked(gaussians), centroids, animator.match_scale)
    duration_s = len(clip.waveform) / AUDIO_RATE_HZ
    return EmotionClasses(
        _by_name(names, whole),
        [
            EmotionSecond(float(start), min(start + 1.0, duration_s), _by_name(names, row))
            for start, row in enumerate(others)
        ],
    )


def _pieces_of_seconds(clip: Clip) -> list[AudioPiece]:
    """Cuts out the sound around the middle of every second; near the ends the pieces are moved into the clip."""
    total = len(clip.waveform)
    size = min(_WINDOW_SAMPLES, total)
    middles = range(AUDIO_RATE_HZ // 2, total + AUDIO_RATE_HZ // 2, AUDIO_RATE_HZ)
    return [AudioPiece(clip, min(max(0, middle - size // 2), total - size), size) for middle in middles]


def _stacked(gaussians: Sequence[Gaussian]) -> Gaussian:
    return Gaussian(*(np.stack(arrays) for arrays in zip(*gaussians, strict=True)))


def _by_name(names: Sequence[str], row: np.ndarray) -> dict[str, float]:
    given = dict(zip(names, row.tolist(), strict=True))
    return {name: given.get(name, 0.0) for name in EMOTIONS}


def emotions_json(classes: EmotionClasses) -> str:
    """Writes the probabilities, rounded to 4 digits, as JSON: `emotions`, and `seconds` with start and end."""

    def rounded(probabilities: dict[str, float]) -> dict[str, float]:
        return {name: round(value, 4) for name, value in probabilities.items()}

    seconds = [
        {"start_s": second.start_s, "end_s": second.end_s, "emotions": rounded(second.probabilities)}
        for second in classes.seconds
    ]
    return json.dumps({"emotions": rounded(classes.probabilities), "seconds": seconds}, indent=1) + "\n"


def emotions_srt(classes: EmotionClasses) -> str:
    """Writes subtitles: the most probable emotion and its mean probability, one subtitle while it stays the same."""
    lines = []
    for number, (name, group) in enumerate(itertools.groupby(classes.seconds, lambda second: second.name), 1):
        seconds = list(group)
        mean = np.mean([second.probabilities[name] for second in seconds])
        span = f"{_srt_time(seconds[0].start_s)} --> {_srt_time(seconds[-1].end_s)}"
        lines += [str(number), span, f"{name} {mean:.2f}", ""]
    return "\n".join(lines)


def _srt_time(seconds: float) -> str:
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{milliseconds:03d}"


# Text of each file format; the keys are the endings that `--formats` takes.
EMOTION_FORMATS: dict[str, Callable[[EmotionClasses], str]] = {
    "emotions.json": emotions_json,
    "emotions.srt": emotions_srt,
}


def write_emotions(path: Path, kind: str, classes: EmotionClasses) -> None:
    """Writes a file in a format of `EMOTION_FORMATS`; it appears complete or not at all."""
    with replace_when_whole(path) as temporary:
        temporary.write_text(EMOTION_FORMATS[kind](classes), encoding="utf-8")
