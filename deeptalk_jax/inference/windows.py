"""Windows of static length over clips of any length, and how their motions are joined.

A short clip is one window, padded to the next bucket. A longer clip is cut into overlapping windows of the greatest
length; the middle of each is kept, and neighbours are cross-faded where they meet. So few shapes are compiled, and
memory does not grow with the clip.
"""

from typing import NamedTuple

import numpy as np

SHORTEST_BUCKET_FRAMES = 64
# Frames of context on either side of the frames that are kept of a window.
CONTEXT_FRAMES = 64
CROSSFADE_FRAMES = 16


class MotionWindow(NamedTuple):
    """A stretch of a clip whose motion is generated at once.

    Attributes:
        first_frame: first motion frame.
        num_frames: number of motion frames, without padding.
    """

    first_frame: int
    num_frames: int


def bucket_for(num_frames: int, longest: int) -> int:
    """Returns the static length for a piece: 64, 96, 128, 192, 256, 384, 512, ... frames, at most `longest`.

    Buckets are the powers of two and the lengths half-way between them, so at most a third of a piece is padding.
    """
    power = SHORTEST_BUCKET_FRAMES
    while power < num_frames:
        power *= 2
    half_way = 3 * power // 4
    return min(max(half_way if num_frames <= half_way else power, SHORTEST_BUCKET_FRAMES), longest)


def cut_pieces(length: int, size: int, *, shortest: int) -> list[int]:
    """Cuts a clip into adjacent pieces that its emotion is pooled from.

    Args:
        length: length of the clip, in frames or samples.
        size: length of a piece.
        shortest: a last piece shorter than this is dropped, unless it is the only one: its emotion is uncertain.

    Returns:
        Start of every piece.
    """
    starts = list(range(0, length, size))
    return starts[:-1] if len(starts) > 1 and length - starts[-1] < shortest else starts


def cut_windows(num_frames: int, size: int) -> list[MotionWindow]:
    """Cuts a clip into windows that overlap by twice the context.

    Starts are multiples of 4 frames, so that the codes of neighbouring windows coincide.

    Args:
        num_frames: length of the clip.
        size: length of a window, a multiple of 4 and more than twice `CONTEXT_FRAMES`.
    """
    stride = size - 2 * CONTEXT_FRAMES
    starts = [0]
    while starts[-1] + size < num_frames:
        starts.append(starts[-1] + stride)
    return [MotionWindow(start, min(size, num_frames - start)) for start in starts]


def join_windows(
    windows: list[MotionWindow], parts: list[np.ndarray], *, frames_per_row: int = 1
) -> np.ndarray:
    """Joins the rows of the windows of a clip; each row comes from the window with the most context around it.

    Args:
        windows: windows of the clip, from `cut_windows`.
        parts: `[rows, ...]` of every window, one row per `frames_per_row` frames; rows of padding may follow.
        frames_per_row: motion frames per row.

    Returns:
        `[ceil(num_frames / frames_per_row), ...]`, a new array.
    """
    last = windows[-1]
    seams = [window.first_frame + CONTEXT_FRAMES for window in windows[1:]]
    kept = []
    for window, part, start, end in zip(
        windows, parts, [0, *seams], [*seams, last.first_frame + last.num_frames], strict=True
    ):
        first_row = window.first_frame // frames_per_row
        kept.append(part[start // frames_per_row - first_row : -(-end // frames_per_row) - first_row])
    return np.concatenate(kept)


def crossfade_windows(windows: list[MotionWindow], parts: list[np.ndarray]) -> np.ndarray:
    """Joins the frames of windows as `join_windows` does, with a linear cross-fade around each seam."""
    joined = join_windows(windows, parts)
    half = CROSSFADE_FRAMES // 2
    for before, after, left, right in zip(windows[:-1], windows[1:], parts[:-1], parts[1:], strict=True):
        first = after.first_frame + CONTEXT_FRAMES - half
        last = min(first + CROSSFADE_FRAMES, before.first_frame + before.num_frames)
        ramp = ((np.arange(first, last) - first + 0.5) / CROSSFADE_FRAMES)[:, None]
        old = left[first - before.first_frame : last - before.first_frame]
        new = right[first - after.first_frame : last - after.first_frame]
        joined[first:last] = (1.0 - ramp) * old + ramp * new
    return joined
