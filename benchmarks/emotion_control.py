"""Benchmark: does a requested emotion show in the motion, and does the mouth still follow the speech?

    python -m benchmarks.emotion_control --model=outputs/demo/model --out=outputs/emotion_control.png

Voices of the test split speak one sentence neutrally. The sentence is animated with `emotion=NAME@INTENSITY` for every
emotion and intensity, and FER classifies the motion: a frame by its logits, a clip by their sum over frames. The
picture shows one voice, with one row per emotion at intensity 3.

The last line is a JSON object. The first three keys map each emotion to a list with one value per intensity, 1 to 3:

* `clips_right`: fraction of clips that FER assigns to the requested emotion.
* `frames_right`: fraction of frames that FER assigns to the requested emotion, averaged over clips.
* `jaw_correlation`: correlation of the opening of the jaw with that in the neutral animation.
* `confusion`: for each requested emotion, the number of clips at intensity 3 by the emotion that FER assigns.
"""

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipeline.synthetic_talk.say import say
from deeptalk_jax.assembly.build import build_fer
from deeptalk_jax.assembly.model_dir import load_part
from deeptalk_jax.cli import run_tool
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.metrics.motion import jaw_opening
from deeptalk_jax.rendering.render import render_frames
from deeptalk_jax.types import EMOTIONS, INT16_SCALE, MOTION_DIM, NUM_INTENSITIES

_MODEL = flags.DEFINE_string(
    "model", None, "Model directory with all parts and the emotion centroids.", required=True
)
_OUT = flags.DEFINE_string("out", "outputs/emotion_control.png", "PNG file to write.")
_TEXT = flags.DEFINE_string(
    "text", "I can hardly believe that you came all this way to see me!", "English sentence to speak."
)
_NUM_VOICES = flags.DEFINE_integer(
    "num_voices", 4, "Number of voices, taken from the test split.", lower_bound=1, upper_bound=4
)

_BLOCK_FRAMES = 64  # frames per call of FER; equal blocks need one compilation only
_PICTURES = 8  # frames shown per emotion


def _classifier(directory: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that maps `[t, 53]` motion to FER's logits `[t, 8]`."""
    part = load_part(directory, "fer")
    apply = jax.jit(functools.partial(build_fer(part.config).apply, part.variables))

    def classify(frames):
        padded = np.zeros((-(-len(frames) // _BLOCK_FRAMES), _BLOCK_FRAMES, MOTION_DIM), np.float32)
        for block, start in zip(padded, range(0, len(frames), _BLOCK_FRAMES), strict=True):
            block[: len(frames) - start] = frames[start : start + _BLOCK_FRAMES]
        return np.concatenate([apply(block) for block in padded])[: len(frames)]

    return classify


def study(
    animate: Callable[[str], Sequence[Motion]], classify: Callable[[np.ndarray], np.ndarray]
) -> tuple[dict[str, Any], dict[str, Motion]]:
    """Measures all emotions and intensities.

    Args:
        animate: Maps an emotion such as `happy@3` to the motions of all voices.
        classify: Maps `[t, 53]` motion to emotion logits `[t, 8]`.

    Returns:
        The report that the module docstring describes, and the first voice's motion for each emotion at intensity 3.
    """
    neutral = [jaw_opening(motion.frames()) for motion in animate("neutral")]
    report = {name: {} for name in ("clips_right", "frames_right", "jaw_correlation", "confusion")}
    pictures = {}
    for label, name in enumerate(EMOTIONS):
        rows = []
        for level in range(1, NUM_INTENSITIES + 1):
            motions = animate(f"{name}@{level}")
            logits = [classify(motion.frames()) for motion in motions]
            classes = [int(frames.sum(axis=0).argmax()) for frames in logits]
            rows.append((
                np.mean([found == label for found in classes]),
                np.mean([(frames.argmax(axis=1) == label).mean() for frames in logits]),
                np.mean([
                    np.corrcoef(jaw_opening(motion.frames()), jaw)[0, 1]
                    for motion, jaw in zip(motions, neutral, strict=True)
                ]),
            ))  # fmt: skip
        pictures[name] = motions[0]
        for key, values in zip(report, np.transpose(rows), strict=False):
            report[key][name] = [round(float(value), 3) for value in values]
        report["confusion"][name] = {EMOTIONS[found]: classes.count(found) for found in sorted(set(classes))}
    return report, pictures


def draw(path: Path, motions: dict[str, Motion]) -> None:
    """Writes a picture with one row of rendered frames per emotion; a column shows the same time in all rows."""
    length = min(map(len, motions.values()))
    indices = np.linspace(0.1 * length, 0.9 * length, _PICTURES).round().astype(int)
    figure = Figure(figsize=(1.3 * _PICTURES + 0.9, 1.35 * len(motions)), dpi=80, layout="constrained")
    axes = figure.subplots(len(motions), _PICTURES, squeeze=False)
    for row, (name, motion) in zip(axes, motions.items(), strict=True):
        frames = render_frames(motion.head, motion.vertices()[indices], size=224)
        for axis, frame in zip(row, frames, strict=True):
            axis.imshow(frame)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name)
    for axis, index in zip(axes[-1], indices, strict=True):
        axis.set_xlabel(f"{(index + 0.5) / 25:.2f} s", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_whole(path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _emotion_control() -> None:
    model = DeepTalk.load(_MODEL.value)
    voices = range(_NUM_VOICES.value)
    sounds = [say(_TEXT.value, emotion="neutral", speaker=voice) * INT16_SCALE for voice in voices]
    report, motions = study(
        lambda emotion: model.animate(sounds, emotion=emotion, blinks=False), _classifier(_MODEL.value)
    )
    draw(Path(_OUT.value), motions)
    print(json.dumps(report))


if __name__ == "__main__":
    run_tool(_emotion_control)
