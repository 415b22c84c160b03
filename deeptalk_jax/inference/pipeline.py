"""Many clips through an `Animator`: emotion first, then motion, both in batches of pieces of equal length."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.inference.animator import (
    Animator,
    MotionRow,
    WindowMotion,
    draw_emotion,
    pool_by_precision,
)
from deeptalk_jax.inference.batcher import BucketBatcher
from deeptalk_jax.inference.clip import Clip
from deeptalk_jax.inference.emotion_track import EmotionTrack
from deeptalk_jax.inference.settings import Sampling
from deeptalk_jax.inference.windows import Window, crossfade_windows, join_windows
from deeptalk_jax.models.motion_prior import FRAMES_PER_BOTTOM_CODE, FRAMES_PER_TOP_CODE
from deeptalk_jax.types import MOTION_RATE_HZ, Gaussian

# Called with the seconds of motion that a call has made.
Progress = Callable[[float], None]


class PipelineSettings(NamedTuple):
    """What all clips share.

    Attributes:
        identity: `[i]` one-hot, a mixture or a fitted one.
        sampling: of every clip alike: what a clip draws does not depend on its neighbours or on its place.
        emotion: Gaussian `[d]` or track to use for every clip instead of its own.
    """

    identity: np.ndarray
    sampling: Sampling
    emotion: Gaussian | EmotionTrack | None = None


class _Job:
    """A clip under way: what is done of its pieces."""

    def __init__(self, name: Any, clip: Clip):
        self.name, self.clip = name, clip
        self.shares = np.ones(1, np.float32)  # of the pieces that the emotion is pooled from
        self.windows: list[Window] = []
        self.failed = False
        self._done: dict[int, Any] = {}
        self._num_pieces = 0

    def expect(self, num_pieces: int) -> None:
        """Starts to collect the results of so many pieces."""
        self._done, self._num_pieces = {}, num_pieces

    def put(self, index: int, result: Any) -> list[Any]:
        """Keeps one result; all of them in order once the last is there, before that nothing."""
        self._done[index] = result
        whole = len(self._done) == self._num_pieces
        return [self._done[index] for index in range(self._num_pieces)] if whole else []


class _Row(NamedTuple):
    """One piece of a job and what the animator needs of it."""

    job: _Job
    index: int
    content: Any


class Pipeline:
    """Animates clips as they come in and gives each as soon as its last batch is done.

    Args:
        animator: runs the calls.
        settings: of all clips.
        progress: told about every call for motion.
    """

    def __init__(self, animator: Animator, settings: PipelineSettings, progress: Progress | None = None):
        self._animator, self._settings, self._progress = animator, settings, progress
        sampling = settings.sampling
        seeds = range(sampling.seed, sampling.seed + sampling.num_samples)
        keys = jnp.stack([jax.random.split(jax.random.key(seed)) for seed in seeds])
        self._emotion_keys, self._code_keys = keys[:, 0], keys[:, 1]
        self._emotions = BucketBatcher(self._embed, sampling.batch_size)
        self._motions = BucketBatcher(self._sample, max(1, sampling.batch_size // sampling.num_samples))

    def run(self, clips: Iterable[tuple[Any, Clip | Exception]]) -> Iterator[tuple[Any, Any]]:
        """Names of clips with their motion, or with the exception that kept it from being made.

        Args:
            clips: names and clips; one that could not be read has its exception in place, which is passed on.

        Yields:
            `(name, samples)`, of each the whole clip as a `WindowMotion`, `[num_frames, 53]` and its codes, in the
            order in which they are done.
        """
        for name, clip in clips:
            if isinstance(clip, Exception):
                yield name, clip
                continue
            yield from self._start(_Job(name, clip))
        while done := self._emotions.flush():
            yield from self._embedded(done)
        while done := self._motions.flush():
            yield from self._sampled(done)

    def _start(self, job: _Job) -> Iterator[tuple[Any, Any]]:
        if self._settings.emotion is not None:
            yield from self._start_motion(job, self._settings.emotion)
            return
        pieces = self._animator.emotion_pieces(job.clip)
        lengths = np.array([piece.num_samples for _, piece in pieces], np.float32)
        job.shares = lengths / lengths.sum()
        job.expect(len(pieces))
        for index, (bucket, piece) in enumerate(pieces):
            yield from self._embedded(self._emotions.add(bucket, _Row(job, index, piece)))

    def _embedded(self, done: list[tuple[_Row, Any]]) -> Iterator[tuple[Any, Any]]:
        for row, result in done:
            if isinstance(result, Exception):
                yield from _fail(row.job, result)
            elif gaussians := row.job.put(row.index, result):
                gaussian = pooled(gaussians, row.job.shares)
                yield from self._start_motion(row.job, Gaussian(gaussian.mean[0], gaussian.log_variance[0]))

    def _start_motion(self, job: _Job, source: Gaussian | EmotionTrack) -> Iterator[tuple[Any, Any]]:
        if isinstance(source, Gaussian):
            emotions = self._drawn(Gaussian(source.mean[None], source.log_variance[None]))[:, 0]
        buckets, windows = zip(*self._animator.motion_windows(job.clip), strict=True)
        job.windows = list(windows)
        job.expect(len(windows))
        for index, (bucket, window) in enumerate(zip(buckets, windows, strict=True)):
            if isinstance(source, EmotionTrack):
                emotions = self._drawn(source.frames(window.first_frame, bucket))
            content = MotionRow(job.clip, window, emotions, self._code_keys)
            yield from self._sampled(self._motions.add(bucket, _Row(job, index, content)))

    def _drawn(self, gaussians: Gaussian) -> np.ndarray:
        """Gaussians `[m, d]` to the emotions `[n, m, d]` of all samples."""
        mode, alpha = self._animator.options.alpha_mode, self._settings.sampling.alpha
        return np.stack([draw_emotion(gaussians, alpha, key, mode=mode) for key in self._emotion_keys])

    def _sampled(self, done: list[tuple[_Row, Any]]) -> Iterator[tuple[Any, Any]]:
        for row, result in done:
            if isinstance(result, Exception):
                yield from _fail(row.job, result)
            elif parts := row.job.put(row.index, result):
                samples = (
                    [WindowMotion(*(array[number] for array in part)) for part in parts]
                    for number in range(self._settings.sampling.num_samples)
                )
                yield row.job.name, [joined(row.job.clip, row.job.windows, sample) for sample in samples]

    def _embed(self, bucket: int, num_rows: int, rows: list[_Row]) -> list[Gaussian]:
        return self._animator.embed(bucket, num_rows, [row.content for row in rows])

    def _sample(self, bucket: int, num_rows: int, rows: list[_Row]) -> list[WindowMotion]:
        contents = [row.content for row in rows]
        settings = self._settings
        results = self._animator.sample(bucket, num_rows, contents, settings.identity, settings.sampling)
        if self._progress is not None:
            num_frames = sum(content.window.num_frames for content in contents)
            self._progress(settings.sampling.num_samples * num_frames / MOTION_RATE_HZ)
        return results


def emotion_of(animator: Animator, clip: Clip, batch_size: int) -> Gaussian:
    """Gaussian `[1, d]` of one clip."""
    pieces = animator.emotion_pieces(clip)
    batcher = BucketBatcher(lambda bucket, count, rows: animator.embed(bucket, count, rows), batch_size)
    done = [pair for bucket, piece in pieces for pair in batcher.add(bucket, piece)]
    while more := batcher.flush():
        done += more
    for _, result in done:
        if isinstance(result, Exception):
            raise result
    gaussians = {piece.first_sample: gaussian for piece, gaussian in done}
    lengths = np.array([piece.num_samples for _, piece in pieces], np.float32)
    return pooled([gaussians[piece.first_sample] for _, piece in pieces], lengths / lengths.sum())


def pooled(gaussians: list[Gaussian], shares: np.ndarray) -> Gaussian:
    """One Gaussian `[1, d]` for the pieces of a clip; a single one stays as it is."""
    if len(gaussians) == 1:
        return gaussians[0]
    return pool_by_precision(
        Gaussian(*(np.concatenate(rows) for rows in zip(*gaussians, strict=True))), shares
    )


def joined(clip: Clip, windows: list[Window], parts: list[WindowMotion]) -> WindowMotion:
    """Motion and codes of one sample of a whole clip, cut to the length of its sound."""
    motions, tops, bottoms = zip(*parts, strict=True)
    top = join_windows(windows, list(tops), frames_per_row=FRAMES_PER_TOP_CODE)
    bottom = join_windows(windows, list(bottoms), frames_per_row=FRAMES_PER_BOTTOM_CODE)
    return WindowMotion(
        crossfade_windows(windows, list(motions))[: clip.num_frames],
        top[: -(-clip.num_frames // FRAMES_PER_TOP_CODE)],
        bottom[: -(-clip.num_frames // FRAMES_PER_BOTTOM_CODE)],
    )


def _fail(job: _Job, error: Exception) -> Iterator[tuple[Any, Exception]]:
    """The first error of a job; the rest of its pieces count for nothing."""
    if not job.failed:
        job.failed = True
        job.expect(0)
        yield job.name, error
