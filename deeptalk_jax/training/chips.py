"""Peak rates of accelerators, by the name that JAX gives a device: the one table of such figures.

TPU: "System architecture" of each generation, https://cloud.google.com/tpu/docs/v4 (v5e, v5p, v6e, tpu7x). NVIDIA: data
sheets of V100, A100, L4, H100 and H200, dense (with sparsity they are twice these), quoted from memory. A v2, v3 or v7
chip is two devices in JAX, each with half of the chip's figure.
"""

_PEAK_BF16_FLOPS_PER_S = {
    "TPU v2": 46e12 / 2,
    "TPU v3": 123e12 / 2,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,  # JAX knows v5e, v5p and v6e by two names each
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,
    "Tesla V100": 125e12,  # float16, it has no bfloat16
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops_per_s(device_kind: str) -> float | None:
    """bfloat16 peak of a device; None where the table does not have it, as for CPUs.

    Args:
        device_kind: `jax.Device.device_kind`; its longest beginning that the table has counts, because GPUs name
            memory and socket too.
    """
    known = [
        name for name in _PEAK_BF16_FLOPS_PER_S if f"{device_kind} ".startswith((f"{name} ", f"{name}-"))
    ]
    return _PEAK_BF16_FLOPS_PER_S[max(known, key=len)] if known else None
