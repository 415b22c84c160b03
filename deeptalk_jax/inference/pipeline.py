"""Clips to motion in two passes over each group of clips: first their emotions, then their motions.

Clips are taken in groups of bounded size, so that memory does not grow with the number of clips. Within a group,
pieces of equal static length run together in batches.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from deeptalk_jax.inference.animator import Animator, MotionRow, WindowMotion, random_keys
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.emotion_gaussian import draw_emotion, pool_by_precision
from deeptalk_jax.inference.emotion_track import EmotionTrack
from deeptalk_jax.inference.options import Sampling
from deeptalk_jax.inference.windows import MotionWindow, crossfade_windows, join_windows
from deeptalk_jax.models.dee import unit_length
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE
from deeptalk_jax.types import MOTION_RATE_HZ, Gaussian

# A batch of this bucket (10 s, rounded up) has `batch_size` rows.
_REFERENCE_FRAMES = 256
# A group closes at this many full batches of clips, or of sound of the reference length: enough for clips of
# different lengths to share batches.
_BATCHES_PER_GROUP = 4

# Called after every motion batch with the seconds of motion that it made.
Progress = Callable[[float], None]
Row = Any
Result = Any


class Request(NamedTuple):
    """Settings that all clips of a call share.

    Attributes:
        identity: `[i]` identity vector.
        sampling: sampling parameters.
        emotion: Gaussian `[d]` or track for every clip; None takes the emotion of each clip's own speech.
    """

    identity: np.ndarray
    sampling: Sampling
    emotion: Gaussian | EmotionTrack | None = None


def animate_clips(
    animator: Animator,
    clips: Iterable[Clip | Exception],
    request: Request,
    progress: Progress | None = None,
) -> Iterator[tuple[int, list[WindowMotion] | Exception]]:
    """Animates clips and yields each as soon as its last batch is done.

    Args:
        animator: runs the compiled programs.
        clips: taken one at a time. An exception in place of a clip is yielded as its result.
        request: identity, sampling and emotion of all clips.
        progress: called after every motion batch.

    Yields:
        Index of the clip; and for every sample the motion of the whole clip `[t, 53]` with its codes, or the
        exception that prevented it.
    """
    limit = _BATCHES_PER_GROUP * request.sampling.batch_size
    group: dict[int, Clip] = {}
    for index, clip in enumerate(clips):
        if isinstance(clip, Exception):
            yield index, clip
            continue
        group[index] = clip
        num_frames = sum(clip.num_model_frames for clip in group.values())
        if len(group) >= limit or num_frames >= limit * _REFERENCE_FRAMES:
            yield from _animate_group(animator, group, request, progress)
            group = {}
    yield from _animate_group(animator, group, request, progress)


def _animate_group(
    animator: Animator, clips: dict[int, Clip], request: Request, progress: Progress | None
) -> Iterator[tuple[int, list[WindowMotion] | Exception]]:
    """Runs both passes over one group; `clips` and the results are by index."""
    emotions = [request.emotion] * len(clips)
    if request.emotion is None:
        emotions = embed_clips(animator, list(clips.values()), request.sampling.batch_size)
    ready = {}
    for (index, clip), emotion in zip(clips.items(), emotions, strict=True):
        if isinstance(emotion, Exception):
            yield index, emotion
        else:
            ready[index] = clip, _emotion_drawer(emotion, animator.options.alpha_mode, request.sampling)
    yield from _animate_with_emotions(animator, ready, request, progress)


def embed_clips(animator: Animator, clips: Sequence[Clip], batch_size: int) -> list[Gaussian | Exception]:
    """Embeds the speech of clips of any length.

    Returns:
        Gaussian `[d]` for every clip, pooled over its pieces, or the first exception of one of them.
    """
    pieces = [animator.emotion_pieces(clip) for clip in clips]
    rows = [row for of_clip in pieces for row in of_clip]
    results = dict(run_in_batches(animator.embed, rows, batch_size))
    in_order = (results[number] for number in range(len(rows)))
    emotions = []
    for of_clip in pieces:
        gaussians = list(islice(in_order, len(of_clip)))
        failures = [result for result in gaussians if isinstance(result, Exception)]
        lengths = [piece.num_samples for _, piece in of_clip]
        emotions.append(failures[0] if failures else pool_by_precision(gaussians, lengths))
    return emotions


def _emotion_drawer(
    source: Gaussian | EmotionTrack, alpha_mode: str, sampling: Sampling
) -> Callable[[MotionWindow, int], np.ndarray]:
    """Returns `(window, bucket) -> emotions` of all samples, `[n, d]`, or `[n, t, d]` from a track."""

    def draw(gaussians: Gaussian) -> np.ndarray:
        if not sampling.alpha:  # skips compiling the noise, which takes as long as animating a short clip
            mean = np.asarray(unit_length(gaussians.mean))
            return np.repeat(mean[None], sampling.num_samples, axis=0)
        keys, _ = random_keys(np.array(sampling.seeds, np.uint32))
        return np.stack([draw_emotion(gaussians, sampling.alpha, key, mode=alpha_mode) for key in keys])

    if isinstance(source, EmotionTrack):
        return lambda window, bucket: draw(source.frames(window.first_frame, bucket))
    emotions = draw(Gaussian(*(array[None] for array in source)))[:, 0]
    return lambda window, bucket: emotions


def _animate_with_emotions(
    animator: Animator,
    clips: dict[int, tuple[Clip, Callable[[MotionWindow, int], np.ndarray]]],
    request: Request,
    progress: Progress | None,
) -> Iterator[tuple[int, list[WindowMotion] | Exception]]:
    """Generates the motions of clips whose emotions are known."""
    sampling = request.sampling

    def sample(bucket: int, num_rows: int, rows: Sequence[tuple[int, MotionWindow]]) -> list[WindowMotion]:
        # Made here, not before, because the emotions of all windows of an hour would fill the memory.
        batch = [
            MotionRow(clips[index][0], window, clips[index][1](window, bucket)) for index, window in rows
        ]
        results = animator.sample(bucket, num_rows, batch, request.identity, sampling)
        if progress is not None:
            num_frames = sum(window.num_frames for _, window in rows)
            progress(sampling.num_samples * num_frames / MOTION_RATE_HZ)
        return results

    windows = {index: animator.motion_windows(clip) for index, (clip, _) in clips.items()}
    rows = [(bucket, (index, window)) for index, of_clip in windows.items() for bucket, window in of_clip]
    done: dict[int, dict[MotionWindow, WindowMotion]] = {index: {} for index in clips}
    for number, result in run_in_batches(sample, rows, max(1, sampling.batch_size // sampling.num_samples)):
        _, (index, window) = rows[number]
        if index not in done:
            continue  # another window of this clip has failed
        if isinstance(result, Exception):
            del done[index]
            yield index, result
            continue
        done[index][window] = result
        if len(done[index]) == len(windows[index]):
            in_order = [(window, done[index][window]) for _, window in windows[index]]
            del done[index]
            yield index, [_join(clips[index][0], in_order, number) for number in range(sampling.num_samples)]


def _join(clip: Clip, windows: Sequence[tuple[MotionWindow, WindowMotion]], sample: int) -> WindowMotion:
    """Joins one sample of all windows of a clip, and cuts it to the length of the sound."""
    cuts = [window for window, _ in windows]
    motions, tops, bottoms = zip(*([array[sample] for array in result] for _, result in windows), strict=True)
    top = join_windows(cuts, list(tops), frames_per_row=FRAMES_PER_TOP_CODE)
    bottom = join_windows(cuts, list(bottoms), frames_per_row=FRAMES_PER_BOTTOM_CODE)
    return WindowMotion(
        crossfade_windows(cuts, list(motions))[: clip.num_frames],
        top[: -(-clip.num_frames // FRAMES_PER_TOP_CODE)],
        bottom[: -(-clip.num_frames // FRAMES_PER_BOTTOM_CODE)],
    )


def rows_per_call(bucket: int, batch_size: int) -> int:
    """Returns the largest number of rows in a batch of a bucket.

    It is `batch_size` up to 10 s and falls with the length beyond that, to at least one row: a batch never holds
    more sound than `batch_size` clips of 10 s, or a single window.
    """
    return max(1, min(batch_size, batch_size * _REFERENCE_FRAMES // bucket))


def static_rows(num_rows: int, most: int) -> int:
    """Returns the number of rows to compile for: the next power of two, at most `most`."""
    return min(1 << (num_rows - 1).bit_length(), most)


def run_in_batches(
    run: Callable[[int, int, Sequence[Row]], Sequence[Result]],
    rows: Sequence[tuple[int, Row]],
    batch_size: int,
) -> Iterator[tuple[int, Result | Exception]]:
    """Runs rows of equal bucket together. A batch that fails is repeated row by row, so a bad row spoils no other.

    Args:
        run: `(bucket, static number of rows, rows) -> results`, one for each row.
        rows: pairs of bucket and row.
        batch_size: see `rows_per_call`.

    Yields:
        Position in `rows`, and the result or the exception of that row.
    """
    by_bucket: dict[int, list[int]] = {}
    for number, (bucket, _) in enumerate(rows):
        by_bucket.setdefault(bucket, []).append(number)
    for bucket, numbers in by_bucket.items():
        most = rows_per_call(bucket, batch_size)
        for start in range(0, len(numbers), most):
            batch = numbers[start : start + most]
            contents = [rows[number][1] for number in batch]
            yield from zip(batch, _run_batch(run, bucket, most, contents), strict=True)


def _run_batch(
    run: Callable[[int, int, Sequence[Row]], Sequence[Result]], bucket: int, most: int, rows: Sequence[Row]
) -> Sequence[Result | Exception]:
    try:
        return run(bucket, static_rows(len(rows), most), rows)
    except Exception as error:
        if len(rows) == 1:
            return [error]
    return [result for row in rows for result in _run_batch(run, bucket, most, [row])]
