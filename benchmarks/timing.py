"""Measurements that the benchmarks share: times of alternating functions, and peak memory of the process."""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def median_s(*functions: Callable[[], Any], runs: int) -> list[float]:
    """Measures the median time of each function over warm runs, in seconds.

    The functions alternate, so that a change of the machine's load affects all of them.

    Args:
        *functions: Functions to time. Each must return only when its work is done, since JAX works asynchronously.
        runs: Number of timed runs of each function, after one that compiles.
    """
    times = [[] for _ in functions]
    for number in range(runs + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if number:  # run 0 compiles
                kept.append(time.perf_counter() - start)
    return [float(np.median(kept)) for kept in times]


def peak_bytes() -> int:
    """Returns the peak resident memory of the process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB, macOS in bytes
