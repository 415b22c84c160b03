"""Contact sheets: one PNG per clip with some of its frames, the waveform below them, and curves of the motion.

A sheet shows in one glance whether lips and sound agree, without playing the video.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.rendering.figure import encode_png

_WAVE_COLOUR, _MARK_COLOUR = "#4c6a92", "#c8553d"
_TRACE_COLOURS = ("#c8553d", "#2f7f6f", "#8a5a9e", "#b58a1f")
_MAX_WAVE_POINTS = 4000
_FRAME_INCHES = 1.9


def _envelope(waveform: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reduces a waveform `[s]` to blocks, so that a plot looks the same as one of all samples but is drawn faster.

    Returns:
        Centres of the blocks in samples, and the minimum and maximum of each block.
    """
    block = max(1, -(-len(waveform) // _MAX_WAVE_POINTS))
    padded = np.pad(waveform, (0, -len(waveform) % block), mode="edge").reshape(-1, block)
    return block * np.arange(len(padded)) + 0.5 * block, padded.min(axis=1), padded.max(axis=1)


def write_contact_sheet(
    path: str | os.PathLike,
    frames: Sequence[np.ndarray],
    times_s: Sequence[float],
    waveform: np.ndarray,
    audio_rate_hz: int,
    *,
    title: str | None = None,
    traces: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Draws a contact sheet and writes it as a PNG. An interrupted call leaves no partial file.

    Args:
        path: file to write, ending in `.png`.
        frames: pictures `[height, width, 3]` uint8.
        times_s: time of each picture, seconds.
        waveform: `[s]` float samples.
        audio_rate_hz: sampling rate of `waveform`.
        title: text above the frames.
        traces: name -> curve `[t]`, for example the jaw opening; its samples are spread evenly over the sound's
            duration.

    Raises:
        UserError: The path does not end in `.png` or its directory does not exist.
        ValueError: There are no frames, or the numbers of frames and times differ.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise UserError(f"{path}: contact sheets are written as .png; choose a path that ends in .png")
    if not path.parent.is_dir():
        raise UserError(f"{path}: the directory {path.parent} does not exist; create it first")
    if not len(frames) or len(frames) != len(times_s):
        raise ValueError(
            f"{len(frames)} frames with {len(times_s)} times; expected at least 1 and equal numbers"
        )
    waveform = np.atleast_1d(np.asarray(waveform, np.float32))
    figure = _draw(frames, np.asarray(times_s), waveform, audio_rate_hz, title, dict(traces or {}))
    with replace_when_whole(path) as temporary:
        temporary.write_bytes(encode_png(figure))


def _draw(
    frames: Sequence[np.ndarray],
    times_s: np.ndarray,
    waveform: np.ndarray,
    audio_rate_hz: int,
    title: str | None,
    traces: dict[str, np.ndarray],
) -> Figure:
    num_frames = len(frames)
    duration_s = max(len(waveform) / audio_rate_hz, float(times_s.max()) + 1e-3)
    heights = [_FRAME_INCHES, 0.35, 0.9] + [0.7] * len(traces)
    width = max(6.0, num_frames * _FRAME_INCHES)
    figure = Figure(figsize=(width, sum(heights) + 0.8), dpi=110, facecolor="white")
    left, right = 0.55 / width, 1.0 - 0.12 / width
    grid = figure.add_gridspec(
        len(heights), 1, height_ratios=heights, left=left, right=right, hspace=0.12,
        top=1.0 - (0.38 if title else 0.1) / figure.get_figheight(), bottom=0.42 / figure.get_figheight(),
    )  # fmt: skip
    pictures = grid[0].subgridspec(1, num_frames, wspace=0.03)
    if title:
        figure.suptitle(
            title, x=left, ha="left", fontsize=11, y=1.0 - 0.10 / figure.get_figheight(), va="top"
        )
    wave_axis = figure.add_subplot(grid[2])
    for index, (frame, time_s) in enumerate(zip(frames, times_s, strict=True)):
        axis = figure.add_subplot(pictures[index])
        axis.imshow(frame)
        axis.set_axis_off()
        axis.text(0.03, 0.97, f"{time_s:.2f} s", transform=axis.transAxes, fontsize=8, va="top", color="#222")
        # A thin line connects the picture with its time on the waveform's axis.
        axis.annotate(
            "", xy=(time_s, 1.0), xycoords=wave_axis.get_xaxis_transform(), xytext=(0.5, 0.0),
            textcoords="axes fraction", arrowprops={"arrowstyle": "-", "color": _MARK_COLOUR, "lw": 0.8},
            annotation_clip=False,
        )  # fmt: skip
    sample, low, high = _envelope(waveform)
    wave_axis.fill_between(sample / audio_rate_hz, low, high, color=_WAVE_COLOUR, lw=0.4)
    limit = max(float(np.abs(waveform).max(initial=0.0)), 1e-3)
    wave_axis.set_ylim(-1.05 * limit, 1.05 * limit)
    _style_axis(wave_axis, "sound", times_s, duration_s, last=not traces)
    for row, (name, trace) in enumerate(traces.items()):
        axis = figure.add_subplot(grid[3 + row], sharex=wave_axis)
        trace = np.atleast_1d(np.asarray(trace, np.float64))
        time = (np.arange(len(trace)) + 0.5) * duration_s / len(trace)
        axis.plot(time, trace, color=_TRACE_COLOURS[row % len(_TRACE_COLOURS)], lw=1.2)
        axis.margins(y=0.12)
        _style_axis(axis, name, times_s, duration_s, last=row == len(traces) - 1)
    return figure


def _style_axis(axis: Axes, name: str, times_s: np.ndarray, duration_s: float, *, last: bool) -> None:
    """Sets name, limits and ticks of an axis over time and marks the times of the frames."""
    axis.set_xlim(0.0, duration_s)
    axis.tick_params(labelsize=7, labelbottom=last, length=2.5)
    axis.locator_params(axis="y", nbins=3)
    for time_s in times_s:
        axis.axvline(time_s, color=_MARK_COLOUR, lw=0.8, alpha=0.7)
    axis.text(0.004, 0.93, name, transform=axis.transAxes, fontsize=8, va="top", color="#222")
    for spine in ("top", "right"):
        axis.spines[spine].set_visible(False)
    if last:
        axis.set_xlabel("time (s)", fontsize=8, labelpad=1)
