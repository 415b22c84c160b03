"""Makes clips in worker processes, in order, holding only a few at a time."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from data_pipeline.synthetic_talk.clip import Clip, ClipPlan

_CLIPS_PER_TASK = 4
_TASKS_AHEAD = 4  # per worker


def _start_worker() -> None:
    """Keeps a worker to one thread and off any accelerator: NumPy is all that it computes with."""
    os.environ.update(JAX_PLATFORMS="cpu", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent closes no queue: without this its workers would wait for work for ever."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _make_clips(plans: "list[ClipPlan]") -> "list[Clip]":
    from data_pipeline.synthetic_talk.clip import make_clip  # after `_start_worker` has set the environment

    return [make_clip(plan) for plan in plans]


@contextlib.contextmanager
def worker_pool(num_workers: int) -> Iterator[concurrent.futures.Executor]:
    """Worker processes, started afresh (not forked, so that the caller may hold threads); stopped at the end.

    Args:
        num_workers: at least 1.
    """
    pool = concurrent.futures.ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def make_clips(
    plans: "Iterable[ClipPlan]", pool: concurrent.futures.Executor, num_workers: int
) -> "Iterator[tuple[ClipPlan, Clip]]":
    """Makes clips in parallel.

    Args:
        plans: what to make.
        pool: from `worker_pool`.
        num_workers: how many processes the pool has.

    Yields:
        Each plan with its clip, in the order of the plans; the clips do not depend on the workers.
    """
    pending: collections.deque[tuple[list[ClipPlan], concurrent.futures.Future[list[Clip]]]] = (
        collections.deque()
    )
    for task in _chunks(plans, _CLIPS_PER_TASK):
        pending.append((task, pool.submit(_make_clips, task)))
        if len(pending) >= _TASKS_AHEAD * num_workers:
            done, future = pending.popleft()
            yield from zip(done, future.result(), strict=True)
    for done, future in pending:
        yield from zip(done, future.result(), strict=True)


def _chunks(plans: "Iterable[ClipPlan]", size: int) -> "Iterator[list[ClipPlan]]":
    chunk: list[ClipPlan] = []
    for plan in plans:
        chunk.append(plan)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
