"""Devices, and where arrays live on them: the one file that knows about parallelism.

Under jit over a mesh every batch array is global and split along its first axis; parameters are replicated. Means
and sums that the step takes over the batch are then global by construction.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA_AXIS = "data"


def make_mesh(num_devices: int | None = None) -> Mesh:
    """Mesh of all devices (or of the first `num_devices`) along the data axis.

    Raises:
        ValueError: more devices are asked for than there are.
    """
    devices = jax.devices()
    if num_devices is not None and num_devices > len(devices):
        raise ValueError(f"num_devices={num_devices}, but there are {len(devices)}")
    return Mesh(np.array(devices[:num_devices]), (DATA_AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of parameters: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: rows are dealt out over the data axis."""
    return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def shard_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, Any]:
    """Global arrays from this process's rows of a batch.

    Raises:
        ValueError: the rows do not divide evenly over the devices.
    """
    local = len(mesh.local_devices)
    rows = len(next(iter(batch.values())))
    if rows % local:
        raise ValueError(f"a batch of {rows} rows does not divide over {local} devices")
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}
