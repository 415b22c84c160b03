"""Measures how each sampling control changes the spread of the samples of a clip, and their lip error."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from data_pipeline.records import Record
from deeptalk_jax.head.model import HeadModel
from deeptalk_jax.head.subset import head_subset
from deeptalk_jax.inference.api import DeepTalk
from deeptalk_jax.inference.motion import Motion
from deeptalk_jax.metrics.diversity import REGIONS, Diversity, diversity_factors
from deeptalk_jax.metrics.motion import MotionErrors
from deeptalk_jax.types import INT16_SCALE

# Values of each control. The other controls are 0, except for top_p, which has no effect on temperature 0.
SWEEPS = MappingProxyType({
    "alpha": (0.0, 0.5, 1.0, 2.0, 4.0),
    "temperature_top": (0.0, 0.25, 0.5, 1.0, 2.0),
    "temperature_bottom": (0.0, 0.25, 0.5, 1.0, 2.0),
    "top_p": (0.0, 0.25, 0.5, 0.75, 0.9, 1.0),
})  # fmt: skip
OTHERS = MappingProxyType({"top_p": {"temperature_top": 1.0, "temperature_bottom": 1.0}})


def study(
    model: DeepTalk,
    clips: Sequence[Record],
    num_samples: int,
    sweeps: Mapping[str, Sequence[float]] = SWEEPS,
) -> dict[str, Any]:
    """Varies one control at a time.

    Args:
        model: model to sample from.
        clips: clips with true motion.
        num_samples: motions per clip, at least 2.
        sweeps: increasing values by control.

    Returns:
        Columns by control: its `values`, and for each value `lips_mm` and `face_mm` (mean distance between two
        samples, mm) and `lip_error_mm` (against the true motion, mean over samples, mm). `rise` tells whether both
        distances increase from each value to the next.
    """
    judge = _Judge(model.head, num_samples)
    report = {}
    for control, values in sweeps.items():
        rows = [
            judge.measures(
                clips, _samples(model, clips, num_samples, OTHERS.get(control, {}) | {control: value})
            )
            for value in values
        ]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        rise = all(one < other for region in REGIONS for one, other in pairwise(columns[f"{region}_mm"]))
        report[control] = {"values": list(values), **columns, "rise": rise}
    return report


def _samples(
    model: DeepTalk, clips: Sequence[Record], num_samples: int, settings: dict[str, float]
) -> list[list[Motion]]:
    sounds = [clip.audio * INT16_SCALE for clip in clips]
    if any(settings.values()):
        return model.animate(sounds, num_samples=num_samples, blinks=False, **settings)
    # The most likely, whatever the seed.
    return [[motion] * num_samples for motion in model.animate(sounds, blinks=False)]


class _Judge:
    """Measures samples on one head."""

    def __init__(self, head: HeadModel, num_samples: int):
        self._factors = diversity_factors(head)
        self._lips = head_subset(head, head.masks["lips"])
        self._names = [f"sample_{number}" for number in range(num_samples)]

    def measures(self, clips: Sequence[Record], made: Sequence[Sequence[Motion]]) -> dict[str, float]:
        """Returns the distances between samples and their mean lip error, in mm."""
        diversity, errors = Diversity(self._factors), MotionErrors(self._lips)
        for clip, motions in zip(clips, made, strict=True):
            frames = np.stack([motion.frames() for motion in motions])[:, : len(clip.motion)]
            diversity.add(frames)
            errors.add(clip.motion[: frames.shape[1]], **dict(zip(self._names, frames, strict=True)))
        lip_error_mm = float(np.mean([errors.lip_error_mm(name) for name in self._names]))
        return {f"{region}_mm": diversity.mean_mm(region) for region in REGIONS} | {
            "lip_error_mm": lip_error_mm
        }
