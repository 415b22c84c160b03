"""The mesh of devices, and how arrays are split over it.

The mesh has two axes. Every batch is split along its first axis over both. A large array of the training state is split
over `fsdp` only and repeated along `data` (fully sharded data parallelism: Rajbhandari et al., SC 2020; Zhao et al.,
VLDB 2023). Under jit arrays are global, so a mean or sum over the batch covers all devices.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from deeptalk_jax.errors import ConfigError

PyTree = Any

DATA_AXIS, FSDP_AXIS = "data", "fsdp"
# Number of elements below which an array is not split: gathering it would cost more than the memory that it takes.
MIN_SPLIT_SIZE = 1 << 14


def make_mesh(
    num_devices: int | None = None, fsdp_devices: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Makes a mesh of the first `num_devices` devices.

    Args:
        num_devices: number of devices; None for all.
        fsdp_devices: length of the `fsdp` axis, which runs over neighbouring devices.
        devices: devices to choose from; None for all that JAX finds.

    Raises:
        ConfigError: there are fewer devices, or their number is not a multiple of `fsdp_devices`.
    """
    devices = jax.devices() if devices is None else devices
    if num_devices is not None and num_devices > len(devices):
        raise ConfigError(
            f"num_devices={num_devices}: expected at most {len(devices)}, the devices of this run"
        )
    devices = np.array(devices[:num_devices])
    if fsdp_devices < 1 or len(devices) % fsdp_devices:
        raise ConfigError(f"fsdp_devices={fsdp_devices}: expected a divisor of the {len(devices)} devices")
    return Mesh(devices.reshape(-1, fsdp_devices), (DATA_AXIS, FSDP_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its rows are divided among all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def split_axis(shape: tuple[int, ...], fsdp_devices: int) -> int | None:
    """Chooses the axis along which an array is split over `fsdp_devices` devices.

    Returns:
        The longest axis that divides evenly; None if there is no such axis, or the array is small.
    """
    divisible = [axis for axis, length in enumerate(shape) if length % fsdp_devices == 0]
    if fsdp_devices == 1 or math.prod(shape) < MIN_SPLIT_SIZE or not divisible:
        return None
    return max(divisible, key=lambda axis: shape[axis])


def state_sharding(mesh: Mesh, state: PyTree) -> PyTree:
    """Returns the sharding of every array (or shape) of a tree, by `split_axis`.

    The rule depends on the shape only, so a weight and its moments in the optimiser are split alike.
    """

    def leaf_sharding(leaf):
        axis = split_axis(leaf.shape, mesh.shape[FSDP_AXIS])
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, FSDP_AXIS)
        return NamedSharding(mesh, spec)

    return jax.tree.map(leaf_sharding, state)


def sharding_table(tree: PyTree, shardings: PyTree) -> str:
    """Describes shardings as text.

    Returns:
        One line per split array (path, shape, axis, MB on each device), and one line for all others together.
    """
    rows, whole, whole_bytes = [], 0, 0
    for (path, leaf), sharding in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(shardings), strict=True
    ):
        held = math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        if FSDP_AXIS in sharding.spec:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            axis = sharding.spec.index(FSDP_AXIS)
            rows.append(f"{name:60s} {leaf.shape!s:20s} axis {axis} {held / 1e6:9.3f} MB")
        else:
            whole, whole_bytes = whole + 1, whole_bytes + held
    return "\n".join([*rows, f"{whole} arrays whole on every device {whole_bytes / 1e6:9.3f} MB"])


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """Makes global arrays from this process's rows of a batch.

    Raises:
        ConfigError: see `check_rows`.
    """
    check_rows(batch, mesh)
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def check_rows(batch: dict[str, np.ndarray], mesh: Mesh) -> None:
    """Checks that this process's rows of a batch divide evenly among its devices.

    Raises:
        ConfigError: they do not.
    """
    num_devices = len(mesh.local_devices)
    num_rows = len(next(iter(batch.values())))
    if num_rows % num_devices:
        raise ConfigError(
            f"data.batch_size: a batch has {num_rows} rows for the {num_devices} devices of a process; expected a "
            f"multiple of {num_devices}"
        )
