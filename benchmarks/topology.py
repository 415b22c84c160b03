"""Descriptions of accelerators that are not there, for the compiler: TPU slices, and hosts of GPUs.

The compilers come as Python packages: `pip install ".[aot]"` for TPUs, `".[cuda]"` for GPUs. What the latter is told of
an H100 SXM stands in the CUDA C++ Programming Guide, table "Technical specifications per compute capability", and in
NVIDIA's data sheet; it is quoted from memory.
"""

import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.chips import Chip, find_chip

# Of each generation, a topology of eight chips.
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
        devices: all of them.
        chip: what each can do.
        num_groups: slices or hosts that are joined by the network, with faster links inside of each.
    """

    devices: list[jax.Device]
    chip: Chip
    num_groups: int


def find_topology(name: str, num_slices: int = 1) -> Topology:
    """The topology of a name: `v5e:16x16` and the like, or `h100:8x32` for 32 hosts of 8 GPUs.

    Args:
        name: generation and shape.
        num_slices: TPU slices of that shape, joined by the network.

    Raises:
        UserError: an unknown generation or shape, several slices of GPUs, or the compiler is not installed.
    """
    generation = name.partition(":")[0]
    if generation not in _EIGHT_CHIPS:
        raise UserError(f"--topology={name} is of none of {', '.join(_EIGHT_CHIPS)}")
    options, package = {}, "aot"
    num_groups, platform = num_slices, "tpu"
    if generation in _GPUS:
        shape = _GPU_NAME.fullmatch(name)
        if shape is None or num_slices > 1:
            raise UserError(
                f"--topology={name}: expected GPUs of a host x hosts, such as h100:8x32, in one slice"
            )
        platform, package, num_groups = "cuda", "cuda", int(shape[3])
        options = {"target_config": _GPUS[generation], "topology": f"1x{shape[3]}x{shape[2]}"}
    elif num_slices > 1:
        options = {"num_slices": num_slices}
    try:
        devices = topologies.get_topology_desc(platform=platform, topology_name=name, **options).devices
    except Exception as error:  # of many kinds, as the package is missing or the name unknown
        raise UserError(
            f'--topology={name}: {str(error).splitlines()[0]} (the compiler comes with pip install ".[{package}]")'
        ) from error
    return Topology(devices, find_chip(devices[0].device_kind), num_groups)


def eight_chips(name: str) -> Topology:
    """Eight devices of the same generation, in one slice or host."""
    return find_topology(_EIGHT_CHIPS[name.partition(":")[0]])
