"""Which part of the runs this machine makes, where several share them."""

from collections.abc import Sequence
from typing import TypeVar

from deeptalk_jax.errors import UserError

_Item = TypeVar("_Item")


def this_host(host_index: int | None, num_hosts: int | None, *, distributed: bool) -> tuple[int, int]:
    """Index of this host and number of hosts.

    Args:
        host_index: given by the person; None where not.
        num_hosts: as many hosts there are, likewise.
        distributed: ask `jax.distributed`, which knows Slurm, Open MPI, Kubernetes and TPU slices. All hosts must start
            together.

    Raises:
        UserError: only one of the numbers is given, they contradict each other, or there is no cluster.
    """
    if distributed:
        if (host_index, num_hosts) != (None, None):
            raise UserError(
                "--distributed tells the hosts apart by itself; leave out --host_index and --num_hosts"
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
    """Every `num_hosts`-th item: all hosts together have each once."""
    return list(items[host_index::num_hosts])


def _from_jax() -> tuple[int, int]:
    import jax

    # This process only asks; the accelerators are for the processes of the runs.
    jax.config.update("jax_platforms", "cpu")
    try:
        jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"--distributed: no cluster is found ({str(error).splitlines()[0]})") from error
    place = jax.process_index(), jax.process_count()
    jax.distributed.shutdown()  # from here on every host goes its own pace
    return place
