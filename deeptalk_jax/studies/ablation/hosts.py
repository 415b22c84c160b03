"""Division of the runs among several machines."""

from collections.abc import Sequence
from typing import TypeVar

from deeptalk_jax.errors import UserError

_Item = TypeVar("_Item")


def this_host(host_index: int | None, num_hosts: int | None, *, distributed: bool) -> tuple[int, int]:
    """Returns the index of this host and the number of hosts.

    Args:
        host_index: value of the flag; None if not given.
        num_hosts: value of the flag; None if not given.
        distributed: whether to ask `jax.distributed`, which recognises Slurm, Open MPI, Kubernetes and TPU slices. All
            hosts must start together.

    Raises:
        UserError: only one number is given, the index is out of range, or no cluster is found.
    """
    if distributed:
        if (host_index, num_hosts) != (None, None):
            raise UserError(
                "--distributed finds the index and the number of hosts; leave out --host_index and --num_hosts"
            )
        return _from_jax()
    if (host_index, num_hosts) == (None, None):
        return 0, 1
    if host_index is None or num_hosts is None:
        raise UserError("--host_index and --num_hosts go together; only one of them is given")
    if not 0 <= host_index < num_hosts:
        raise UserError(f"--host_index={host_index} is not one of --num_hosts={num_hosts}, counted from 0")
    return host_index, num_hosts


def share(items: Sequence[_Item], host_index: int, num_hosts: int) -> list[_Item]:
    """Returns every `num_hosts`-th item; all hosts together have each item once."""
    return list(items[host_index::num_hosts])


def _from_jax() -> tuple[int, int]:
    import jax

    # This process does not compute; the accelerators are left to the processes of the runs.
    jax.config.update("jax_platforms", "cpu")
    try:
        jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--distributed: no cluster is found ({str(error).splitlines()[0]})") from error
    place = jax.process_index(), jax.process_count()
    jax.distributed.shutdown()  # the hosts need no further communication
    return place
