"""Joins several processes, on one host or many, into one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from deeptalk_jax.errors import LostProcess, UserError

PyTree = Any

HEARTBEAT_TIMEOUT_S = 40  # with it, a lost process is noticed within a minute


def join_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of this job; must be called before anything asks JAX for devices.

    Args:
        coordinator: address `host:port` on which process 0 listens. None to read it, and the other two numbers, from
            the cluster environment: SLURM, Open MPI, Kubernetes or Cloud TPU.
        num_processes: number of processes.
        process_id: index of this process, from 0.

    Raises:
        UserError: only some of the three are given, or the other processes cannot be reached.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(f"--coordinator, --num_processes and --process_id go together; missing: {missing[0]}")
    try:
        jax.distributed.initialize(
            coordinator, num_processes, process_id, heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"cannot join the other processes ({str(error).splitlines()[0]})") from error


def may_be_lost(error: Exception) -> bool:
    """Returns whether an error may come from a collective or barrier that failed because a process has ended."""
    full = any(text in str(error) for text in ("RESOURCE_EXHAUSTED", "No space left"))
    return (
        jax.process_count() > 1 and isinstance(error, (jax.errors.JaxRuntimeError, TimeoutError)) and not full
    )


@contextmanager
def watching_others() -> Iterator[None]:
    """Raises `LostProcess` for an error in the steps of a run that another, lost process has caused."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, TimeoutError) as error:
        if not may_be_lost(error):
            raise
        raise LostProcess(
            f"process {jax.process_index()} stopped, most likely because another process has ended "
            f"({str(error).splitlines()[0]}); start all processes again to resume from the newest checkpoint"
        ) from error


def any_process(flag: bool) -> bool:
    """Returns whether the flag is true in any process; all processes must call this at the same step."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def on_host(tree: PyTree) -> PyTree:
    """Copies global arrays whole to the host of every process; all processes must call this at the same step."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))
