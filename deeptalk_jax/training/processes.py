"""Several processes, on one host or many, as one run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from deeptalk_jax.errors import LostProcess, UserError

PyTree = Any

HEARTBEAT_TIMEOUT_S = 40  # a lost process is noticed by then, within a minute


def join_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of this job; to be called before anything asks JAX for devices.

    Args:
        coordinator: `host:port` of the first process, which it opens; None to ask SLURM, Open MPI, Kubernetes or the
            metadata of Cloud TPU, which tell the other two numbers as well.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        UserError: only some of the three are given, or the others cannot be found.
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
    """Whether an error may mean that another process is gone: a collective or barrier has failed."""
    full = any(text in str(error) for text in ("RESOURCE_EXHAUSTED", "No space left"))
    return (
        jax.process_count() > 1 and isinstance(error, (jax.errors.JaxRuntimeError, TimeoutError)) and not full
    )


@contextmanager
def watching_others() -> Iterator[None]:
    """Around the steps of a run: what fails in them because another process is gone raises `LostProcess`."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, TimeoutError) as error:
        if not may_be_lost(error):
            raise
        raise LostProcess(
            f"process {jax.process_index()} cannot go on, most likely because another process is gone "
            f"({str(error).splitlines()[0]}); start all of them again to go on from the newest checkpoint"
        ) from error


def any_process(flag: bool) -> bool:
    """Whether the flag is true in any process; all must ask at the same step."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def as_global(tree: PyTree, mesh: Mesh) -> PyTree:
    """Arrays that pmap has made, whole on this process's devices and alike in all, as one array over all processes."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(tree, mesh, PartitionSpec())


def on_host(tree: PyTree) -> PyTree:
    """Global arrays as numpy arrays, whole in every process; all must ask at the same step."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return jax.tree.map(np.asarray, multihost_utils.process_allgather(tree, tiled=True))
