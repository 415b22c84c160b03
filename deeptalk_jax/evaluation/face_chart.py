"""Charts of what a face says: strength of emotions, sounds on the lips, and the course of lips and lids in a clip."""

from collections.abc import Sequence

import numpy as np

from deeptalk_jax.evaluation.face import GENERATED, HEARD, PRIOR, TRUTH, FaceClip, FaceReport, GainTable
from deeptalk_jax.evaluation.result import Panel, Table
from deeptalk_jax.metrics.eyelids import CLOSED_OPENING
from deeptalk_jax.metrics.face_points import FacePoints
from deeptalk_jax.rendering.figure import (
    GREY,
    INK,
    MOTION_COLOUR,
    SPEECH_COLOUR,
    encode_png,
    new_figure,
    style_axes,
)
from deeptalk_jax.types import MOTION_RATE_HZ, NUM_INTENSITIES, VISEME_CLASSES

# Colours of motions and of sources of gains.
_COLOURS = {
    TRUTH: INK,
    PRIOR: GREY,
    GENERATED: SPEECH_COLOUR,
    HEARD: SPEECH_COLOUR,
    "named": MOTION_COLOUR,
    "reconstruction": MOTION_COLOUR,
}
_SHARES = ("closure_rate", "closure_auc", "rounding_auc")


def draw_face(clips: Sequence[FaceClip], report: FaceReport, points: FacePoints) -> list[Panel]:
    """Draws the panels of an evaluation page from a report and its clips."""
    panels = []
    if report.gains:
        panels.append(
            Panel(
                "emotion_gain",
                "Strength of emotions",
                "Mean expression of the clips of an emotion minus that of neutral clips, projected on the true one: 1 "
                "is the strength of the data set. Each group of bars is an emotion at the intensities 1, 2 and 3. "
                "named: neutral sentences animated with a named emotion; heard: emotion of the speech; "
                "prior, reconstruction: what the codes of the motion prior keep.",
                draw_gains(report.gains),
                gain_rows(report.gains),
            )
        )
    keys = list(dict.fromkeys(key for measures in report.motions.values() for key in measures))
    rows = [(key, *(measures.get(key) for measures in report.motions.values())) for key in keys]
    panels.append(
        Panel(
            "mouth_and_eyes",
            "Lips, lids and brows",
            "closure_rate: share of p, b, m whose lip gap falls under a quarter of that of open vowels. closure_auc "
            "and rounding_auc: how well gap and width tell closures from open vowels and rounded from spread sounds. "
            "closed_share: frames with closed eyes. Jitter: mean second difference over that of the truth.",
            draw_measures(report.motions),
            Table(("measure", *report.motions), rows),
        )
    )
    panels.append(
        Panel(
            "course",
            "Lips and lids in one clip",
            "The clip with the most closures and blinks. Shaded: p, b, m. Dotted: the eye counts as closed below.",
            draw_course(typical_clip(clips, points), points),
        )
    )
    return panels


def draw_gains(gains: dict[str, GainTable]) -> bytes:
    """Draws the gain of each emotion and intensity, one row per source."""
    figure = new_figure(7.5, 0.5 + 1.6 * len(gains))
    axes = figure.subplots(len(gains), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    width = 0.8 / NUM_INTENSITIES
    for axis, (source, table) in zip(axes, gains.items(), strict=True):
        for level in range(NUM_INTENSITIES):
            heights = [row["gain"][level] or 0.0 for row in table.values()]
            places = np.arange(len(table)) + (level - 1) * width
            axis.bar(
                places, heights, 0.9 * width, color=_COLOURS[source], alpha=(level + 1) / NUM_INTENSITIES
            )
        axis.axhline(1.0, color=INK, lw=0.8, ls=":")
        axis.set_xticks(range(len(table)), list(table))
        axis.set_ylabel("gain", fontsize=8)
        style_axes(axis, source)
    return encode_png(figure)


def gain_rows(gains: dict[str, GainTable]) -> Table:
    """Returns gain and cosine at the strongest intensity by emotion and source."""
    header = [f"{key} {source}" for source in gains for key in ("gain", "cosine")]
    emotions = dict.fromkeys(emotion for table in gains.values() for emotion in table)
    rows = []
    for emotion in emotions:
        found = [table.get(emotion) for table in gains.values()]
        rows.append((emotion, *(row and row[key][-1] for row in found for key in ("gain", "cosine"))))
    return Table((f"at intensity {NUM_INTENSITIES}", *header), rows)


def draw_measures(motions: dict[str, dict[str, float]]) -> bytes:
    """Draws the shares of sounds that show on the lips, and the share of closed frames."""
    figure = new_figure(7.5, 2.6)
    left, right = figure.subplots(1, 2, width_ratios=(3.0, 1.0))
    keys = [key for key in _SHARES if any(key in measures for measures in motions.values())]
    width = 0.8 / len(motions)
    for number, (name, measures) in enumerate(motions.items()):
        colour = _COLOURS[name]
        places = np.arange(len(keys)) + (number - 0.5 * (len(motions) - 1)) * width
        left.bar(places, [measures.get(key, 0.0) for key in keys], 0.9 * width, color=colour, label=name)
        right.bar(number, 100.0 * measures["closed_share"], 0.8, color=colour)
    left.set_xticks(range(len(keys)), keys)
    left.set_ylim(0.0, 1.2)
    left.legend(fontsize=8, frameon=False, loc="upper right", ncols=len(motions))
    right.set_xticks(range(len(motions)), list(motions), rotation=30)
    right.set_ylabel("frames, %", fontsize=8)
    style_axes(left, "sounds on the lips")
    style_axes(right, "closed eyes")
    return encode_png(figure)


def typical_clip(clips: Sequence[FaceClip], points: FacePoints) -> FaceClip:
    """Returns the clip whose true motion has the most frames of closures and of closed eyes."""
    bilabial = VISEME_CLASSES.index("bilabial")

    def interest(clip):
        closed = points.signals(clip.motions[TRUTH]).lid_opening < CLOSED_OPENING
        return np.sum(clip.visemes == bilabial) * (1 + closed.sum())

    return max(clips, key=interest)


def draw_course(clip: FaceClip, points: FacePoints) -> bytes:
    """Draws the lip gap and the opening of the lids over time, for all motions of a clip."""
    figure = new_figure(9.0, 4.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    time_s = (np.arange(len(clip.visemes)) + 0.5) / MOTION_RATE_HZ
    for name, motion in clip.motions.items():
        signals, colour = points.signals(motion), _COLOURS[name]
        upper.plot(time_s, signals.lip_gap, color=colour, lw=1.3, label=name)
        lower.plot(time_s, signals.lid_opening, color=colour, lw=1.3)
    closures = clip.visemes == VISEME_CLASSES.index("bilabial")
    upper.fill_between(
        time_s, 0, 1, where=closures, step="mid", alpha=0.2, color=GREY, transform=upper.get_xaxis_transform()
    )
    lower.axhline(CLOSED_OPENING, color=INK, lw=0.8, ls=":")
    upper.legend(fontsize=8, frameon=False, loc="upper right")
    upper.set_ylabel("lip gap, mm", fontsize=8)
    lower.set_ylabel("opening of the lids / rest", fontsize=8)
    lower.set_xlabel("time, s", fontsize=8)
    style_axes(upper)
    style_axes(lower)
    return encode_png(figure)
