"""Peak rates and memory sizes of accelerators, by the name that JAX gives a device.

TPU: "System architecture" of each generation, https://cloud.google.com/tpu/docs/v4 (v5e, v5p, v6e, tpu7x). NVIDIA: data
sheets of V100, A100, L4, H100, H200 and DGX H100, for dense products (sparse ones are twice as fast), quoted from
memory. A chip of v2, v3 or v7 is two devices in JAX, each with half of the chip's rate.
"""

from typing import NamedTuple


class Chip(NamedTuple):
    """Peak rates and memory size of a device; None where they are unknown.

    Attributes:
        flops_per_s: rate of bfloat16 products, FLOP/s.
        memory_bytes: size of the device's memory.
        memory_bytes_per_s: bandwidth of that memory.
        link_bytes_per_s: bandwidth to the other devices of the slice or host, all links together, one direction.
        network_bytes_per_s: one device's share of the data-centre network, to other slices or hosts.
    """

    flops_per_s: float
    memory_bytes: float | None = None
    memory_bytes_per_s: float | None = None
    link_bytes_per_s: float | None = None
    network_bytes_per_s: float | None = None


_V5E = Chip(197e12, 16e9, 819e9, 200e9, 6.4e12 / 8 / 256)
_V5P = Chip(459e12, 95e9, 2765e9, 600e9)
_V6E = Chip(918e12, 32e9, 1600e9, 400e9, 25.6e12 / 8 / 256)

_CHIPS = {
    "TPU v2": Chip(46e12 / 2),
    "TPU v3": Chip(123e12 / 2),
    "TPU v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "TPU v5 lite": _V5E,  # JAX has two names each for v5e, v5p and v6e
    "TPU v5e": _V5E,
    "TPU v5": _V5P,
    "TPU v5p": _V5P,
    "TPU v6 lite": _V6E,
    "TPU v6e": _V6E,
    "TPU7x": Chip(2307e12 / 2),
    "Tesla V100": Chip(125e12),  # float16, because it has no bfloat16
    "NVIDIA A100": Chip(312e12),
    "NVIDIA L4": Chip(121e12),
    "NVIDIA H100 PCIe": Chip(756e12),
    # SXM; NVLink inside a host, 400 Gb/s per GPU between hosts
    "NVIDIA H100": Chip(989e12, 80e9, 3350e9, 450e9, 50e9),
    "NVIDIA H200": Chip(989e12),
}


def find_chip(device_kind: str) -> Chip | None:
    """Looks up a device; returns None if the table does not have it, as for CPUs.

    Args:
        device_kind: `jax.Device.device_kind`. The entry that matches the longest beginning of it is taken, because
            the names of GPUs end with memory size and socket.
    """
    known = [name for name in _CHIPS if f"{device_kind} ".startswith((f"{name} ", f"{name}-"))]
    return _CHIPS[max(known, key=len)] if known else None
