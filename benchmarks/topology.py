"""Topologies for ahead-of-time compilation: TPU slices and GPU hosts that are described, not present.

Used by `benchmarks.pod`. The compilers come as Python packages: `pip install ".[aot]"` for TPUs and
`pip install ".[cuda]"` for GPUs. The description of the H100 SXM follows the CUDA C++ Programming Guide (table
"Technical specifications per compute capability") and NVIDIA's data sheet; the figures are quoted from memory.
"""

import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.chips import Chip, find_chip

# Topology of eight chips for each generation.
_EIGHT_CHIPS = {"v4": "v4:2x2x2", "v5e": "v5e:2x4", "v5p": "v5p:2x2x2", "v6e": "v6e:2x4", "h100": "h100:8x1"}
_GPU_NAME = re.compile(r"(\w+):(\d+)x(\d+)")

_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448 shared_memory_per_core: 233472
  l2_cache_size: 52428800 memory_bandwidth: 3350000000000 device_memory_size: 80000000000
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  cuda_compute_capability { major: 9 minor: 0 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
_GPUS = {"h100": _H100}


class Topology(NamedTuple):
    """Devices to compile for.

    Attributes:
        devices: Descriptions of all devices.
        chip: Rates and memory of each device.
        num_groups: Number of TPU slices or GPU hosts. The network joins them; links inside each are faster.
    """

    devices: list[jax.Device]
    chip: Chip
    num_groups: int


def find_topology(name: str, num_slices: int = 1) -> Topology:
    """Returns the topology of a name.

    Args:
        name: Generation and shape, such as `v5e:16x16` for TPUs, or `h100:8x32` for 32 hosts of 8 GPUs.
        num_slices: Number of TPU slices of that shape, joined by the network.

    Raises:
        UserError: The generation or shape is unknown, several slices of GPUs are requested, or the compiler is not
            installed.
    """
    generation = name.partition(":")[0]
    if generation not in _EIGHT_CHIPS:
        raise UserError(f"--topology={name}: expected a shape of one of: {', '.join(_EIGHT_CHIPS)}")
    options, package = {}, "aot"
    num_groups, platform = num_slices, "tpu"
    if generation in _GPUS:
        shape = _GPU_NAME.fullmatch(name)
        if shape is None or num_slices > 1:
            raise UserError(
                f"--topology={name}: expected GPUs per host x number of hosts, such as h100:8x32, and one slice"
            )
        platform, package, num_groups = "cuda", "cuda", int(shape[3])
        options = {"target_config": _GPUS[generation], "topology": f"1x{shape[3]}x{shape[2]}"}
    elif num_slices > 1:
        options = {"num_slices": num_slices}
    try:
        devices = topologies.get_topology_desc(platform=platform, topology_name=name, **options).devices
    except Exception as error:  # the type depends on whether the package is missing or the name is unknown
        raise UserError(
            f'--topology={name}: {str(error).splitlines()[0]} (the compiler comes with pip install ".[{package}]")'
        ) from error
    return Topology(devices, find_chip(devices[0].device_kind), num_groups)


def eight_chips(name: str) -> Topology:
    """Returns a topology of eight devices of the same generation, in one slice or host."""
    return find_topology(_EIGHT_CHIPS[name.partition(":")[0]])
