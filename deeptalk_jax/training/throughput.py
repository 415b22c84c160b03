"""How fast a run goes, and what holds it up."""

import time
from collections.abc import Iterator
from typing import Any

import jax

from deeptalk_jax.training.chips import find_chip


class Throughput:
    """Rates between two logging steps, measured on the host without waiting for the device.

    Args:
        batch_size: examples of a step, over all processes.
        device: one of the devices that take the steps.
    """

    def __init__(self, batch_size: int, device: jax.Device):
        self._batch_size, self._device = batch_size, device
        self.step_flops: float | None = None
        self.restart()

    def restart(self) -> None:
        """Begins to measure anew."""
        self._since, self._waited_s = time.perf_counter(), 0.0

    def next_batch(self, batches: Iterator[Any], previous: jax.Array | None) -> Any:
        """The next batch; time spent on it counts as waiting if the device has run out of work when it comes.

        Args:
            batches: the loader.
            previous: a result of the last step, None before the first.
        """
        start = time.perf_counter()
        batch = next(batches)
        if previous is None or previous.is_ready():
            self._waited_s += time.perf_counter() - start
        return batch

    def rates(self, num_steps: int) -> dict[str, float | None]:
        """Rates of the steps since the last call, which must be done; None for what the device does not tell.

        Returns:
            steps_per_s; examples_per_s over all processes; data_wait: fraction of the time in which the device stood
            still for want of a batch, at most; mfu: FLOP of the compiled program (what is computed twice to save
            memory counts twice, the body of a loop once) per second, as a fraction of the bfloat16 peak;
            device_memory_bytes: the most that the device has held.
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
