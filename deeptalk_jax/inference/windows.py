"""Static windows over clips of any length: a few compiled shapes, and memory that does not grow with the clip.

A short clip is one window, padded to the next bucket. A long clip is cut into windows of the greatest length, which
overlap; of each, the middle is kept, and neighbours are cross-faded where they meet.
"""

from typing import NamedTuple

import numpy as np

SHORTEST_BUCKET_FRAMES = 64
# What a window sees beyond the frames that it decides, on either side.
CONTEXT_FRAMES = 64
CROSSFADE_FRAMES = 16


class Window(NamedTuple):
    """A stretch of a clip.

    Attributes:
        first_frame: where it begins.
        num_frames: how many of its frames belong to the clip.
    """

    first_frame: int
    num_frames: int


def bucket_for(num_frames: int, longest: int) -> int:
    """Static length for a piece: 64, 96, 128, 192, 256, 384, 512, ... frames, `longest` at the most.

    The powers of two and the lengths half-way between them: at most a third of a piece is padding, and few programs
    are compiled.
    """
    power = SHORTEST_BUCKET_FRAMES
    while power < num_frames:
        power *= 2
    half_way = 3 * power // 4
    return min(max(half_way if num_frames <= half_way else power, SHORTEST_BUCKET_FRAMES), longest)


def cut_pieces(length: int, size: int, *, shortest: int) -> list[int]:
    """Starts of the pieces that the emotion of a clip is pooled from, side by side.

    Args:
        length: of the clip, frames or samples.
        size: of a piece.
        shortest: a last piece below this says little and would weigh as one: it joins nothing.
    """
    starts = list(range(0, length, size))
    return starts[:-1] if len(starts) > 1 and length - starts[-1] < shortest else starts


def cut_windows(num_frames: int, size: int) -> list[Window]:
    """Windows that cover a clip; starts are multiples of 4 frames, so that codes of neighbours coincide.

    Args:
        num_frames: of the clip.
        size: of a window, a multiple of 4 and more than twice `CONTEXT_FRAMES`.
    """
    stride = size - 2 * CONTEXT_FRAMES
    starts = [0]
    while starts[-1] + size < num_frames:
        starts.append(starts[-1] + stride)
    return [Window(start, min(size, num_frames - start)) for start in starts]


def join_windows(windows: list[Window], parts: list[np.ndarray], *, frames_per_row: int = 1) -> np.ndarray:
    """Rows of a clip from those of its windows, each row from the window that sees most around it.

    Args:
        windows: of `cut_windows`.
        parts: `[rows, ...]` of each window, one row per `frames_per_row` frames; padding rows may follow.
        frames_per_row: frames that a row stands for.

    Returns:
        `[ceil(num_frames / frames_per_row), ...]`.
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


def crossfade_windows(windows: list[Window], parts: list[np.ndarray]) -> np.ndarray:
    """Like `join_windows` for frames, but linear over `CROSSFADE_FRAMES` around each seam."""
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
