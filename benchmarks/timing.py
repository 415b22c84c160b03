"""What all benchmarks share: times taken side by side, and the memory of the process."""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def median_s(*functions: Callable[[], Any], runs: int) -> list[float]:
    """Median time of each function over warm runs, all of them in turn; they return when their work is done."""
    times = [[] for _ in functions]
    for number in range(runs + 1):
        for function, kept in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            if number:  # the first run compiles
                kept.append(time.perf_counter() - start)
    return [float(np.median(kept)) for kept in times]


def peak_bytes() -> int:
    """Most memory that the process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
