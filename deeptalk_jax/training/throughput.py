"""Measures the speed of a run: steps and examples per second, waiting for data, and use of the hardware."""

import time
from collections.abc import Iterator
from typing import Any

import jax

from deeptalk_jax.training.chips import find_chip


class Throughput:
    """Measures rates between two logging steps, on the host and without waiting for the device.

    Args:
        batch_size: number of examples of a step, over all processes.
        device: one of the devices that run the step.

    Attributes:
        step_flops: floating-point operations of a step on one device; None until the step is compiled.
    """

    def __init__(self, batch_size: int, device: jax.Device):
        self._batch_size, self._device = batch_size, device
        self.step_flops: float | None = None
        self.restart()

    def restart(self) -> None:
        """Starts a new measurement."""
        self._since, self._waited_s = time.perf_counter(), 0.0

    def next_batch(self, batches: Iterator[Any], previous: jax.Array | None) -> Any:
        """Returns the next batch; the time counts as waiting if the device has finished its work before it arrives.

        Args:
            batches: iterator over training batches.
            previous: a result of the last step; None before the first.
        """
        start = time.perf_counter()
        batch = next(batches)
        if previous is None or previous.is_ready():
            self._waited_s += time.perf_counter() - start
        return batch

    def rates(self, num_steps: int) -> dict[str, float | None]:
        """Returns the rates of the steps since the last call, which must be finished.

        Args:
            num_steps: number of these steps.

        Returns:
            `steps_per_s`; `examples_per_s` over all processes; `data_wait`, an upper bound of the fraction of time in
            which the device waited for a batch; `mfu`, the FLOP of the compiled program per second as a fraction of
            the bfloat16 peak (recomputed values count twice, the body of a loop once); `device_memory_bytes`, the
            peak memory of the device. The last two are None where they are unknown.
        """
        elapsed_s = time.perf_counter() - self._since
        steps_per_s = num_steps / elapsed_s
        chip = find_chip(self._device.device_kind)
        memory = self._device.memory_stats()
        rates = {
            "steps_per_s": steps_per_s,
            "examples_per_s": steps_per_s * self._batch_size,
            "data_wait": self._waited_s / elapsed_s,
            "mfu": steps_per_s * self.step_flops / chip.flops_per_s if chip and self.step_flops else None,
            "device_memory_bytes": memory["peak_bytes_in_use"] if memory else None,
        }
        self.restart()
        return rates
