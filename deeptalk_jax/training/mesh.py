"""Devices, and where arrays live on them.

The mesh has two axes. Every batch is split along its first axis over both; a large array of the training state is
split over `fsdp` alone, by a rule of its shape, and whole along `data` (fully sharded data parallelism: Rajbhandari et
al., SC 2020; Zhao et al., VLDB 2023). Under jit arrays are global, so means and sums that the step takes over the
batch are global by construction.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PyTree = Any

DATA_AXIS, FSDP_AXIS = "data", "fsdp"
# Smaller arrays are whole everywhere: gathering them costs more than they weigh.
MIN_SPLIT_SIZE = 1 << 14


def make_mesh(
    num_devices: int | None = None, fsdp_devices: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Mesh of all devices, or of the first `num_devices`.

    Args:
        num_devices: how many there shall be; None for all.
        fsdp_devices: length of the `fsdp` axis, neighbours among the devices.
        devices: those to choose from; None for all that JAX has.

    Raises:
        ValueError: more devices are asked for than there are, or they do not divide into groups of `fsdp_devices`.
    """
    devices = jax.devices() if devices is None else devices
    if num_devices is not None and num_devices > len(devices):
        raise ValueError(f"num_devices={num_devices}, but there are {len(devices)}")
    devices = np.array(devices[:num_devices])
    if fsdp_devices < 1 or len(devices) % fsdp_devices:
        raise ValueError(f"fsdp_devices={fsdp_devices} does not divide {len(devices)} devices")
    return Mesh(devices.reshape(-1, fsdp_devices), (DATA_AXIS, FSDP_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: rows are dealt out over all devices."""
    return NamedSharding(mesh, PartitionSpec((DATA_AXIS, FSDP_AXIS)))


def split_axis(shape: tuple[int, ...], fsdp_devices: int) -> int | None:
    """The axis along which an array is split: the longest that divides evenly; None if none does, or it is small."""
    divisible = [axis for axis, length in enumerate(shape) if length % fsdp_devices == 0]
    if fsdp_devices == 1 or math.prod(shape) < MIN_SPLIT_SIZE or not divisible:
        return None
    return max(divisible, key=lambda axis: shape[axis])


def state_sharding(mesh: Mesh, state: PyTree) -> PyTree:
    """Sharding of every array (or shape) of a tree, by `split_axis`: weights and their moments alike."""

    def of_leaf(leaf):
        axis = split_axis(leaf.shape, mesh.shape[FSDP_AXIS])
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, FSDP_AXIS)
        return NamedSharding(mesh, spec)

    return jax.tree.map(of_leaf, state)


def sharding_table(tree: PyTree, shardings: PyTree) -> str:
    """One line for each array that is split, and one for the others together: shape, axis, MB on each device."""
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
    """Global arrays from this process's rows of a batch.

    Raises:
        ValueError: the rows do not divide evenly over the devices.
    """
    _check_rows(batch, mesh)
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def rows_by_device(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, np.ndarray]:
    """This process's rows `[devices * b, ...]` as `[devices, b, ...]`, as `jax.pmap` takes them.

    Raises:
        ValueError: see `shard_batch`.
    """
    _check_rows(batch, mesh)
    local = len(mesh.local_devices)
    return {name: rows.reshape(local, -1, *rows.shape[1:]) for name, rows in batch.items()}


def _check_rows(batch: dict[str, np.ndarray], mesh: Mesh) -> None:
    local = len(mesh.local_devices)
    rows = len(next(iter(batch.values())))
    if rows % local:
        raise ValueError(f"a batch of {rows} rows does not divide over {local} devices")
