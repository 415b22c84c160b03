"""Worker processes that generate clips in parallel.

Clips are returned in the order of their plans, and only a few are in memory at a time.
"""

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
_TASKS_AHEAD = 4  # pending tasks per worker


def _start_worker() -> None:
    """Limits a worker to one thread and keeps it off accelerators, because it computes with NumPy only."""
    os.environ.update(JAX_PLATFORMS="cpu", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exits when the parent dies: a killed parent does not close its queue, and workers would wait forever."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _make_clips(plans: "list[ClipPlan]") -> "list[Clip]":
    from data_pipeline.synthetic_talk.clip import (
        make_clip,
    )  # imported after `_start_worker` set the environment

    return [make_clip(plan) for plan in plans]


@contextlib.contextmanager
def worker_pool(num_workers: int) -> Iterator[concurrent.futures.Executor]:
    """Starts worker processes, and stops them at the end of the context.

    They are spawned and not forked, so the caller may have threads.

    Args:
        num_workers: Number of processes, at least 1.
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
    """Generates clips in parallel.

    Args:
        plans: Plans of the clips.
        pool: Processes from `worker_pool`.
        num_workers: Number of processes in the pool.

    Yields:
        Each plan with its clip, in the order of the plans. The clips do not depend on the number of workers.
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
