"""Rates of a run, figures of chips, and the trace of a few steps."""

import time

import jax
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.chips import find_chip
from deeptalk_jax.training.step_trace import StepTrace, parse_steps
from deeptalk_jax.training.throughput import Throughput


class Result:
    """Stands for a result that is ready, or not."""

    def __init__(self, is_done):
        self.is_ready = lambda: is_done


class Chip:
    device_kind = "TPU v5 lite"

    def memory_stats(self):
        return {"peak_bytes_in_use": 123}


def slow_batches():
    for number in range(9):
        time.sleep(0.02)
        yield number


def test_reading_counts_as_waiting_only_if_the_device_has_nothing_to_do():
    throughput, batches = Throughput(32, jax.devices()[0]), slow_batches()
    assert throughput.next_batch(batches, None) == 0
    assert throughput.next_batch(batches, Result(True)) == 1
    waiting = throughput.rates(2)
    assert 0.9 < waiting["data_wait"] <= 1
    throughput.next_batch(batches, Result(False))
    hidden = throughput.rates(1)
    assert hidden["data_wait"] == 0
    assert hidden["examples_per_s"] == pytest.approx(32 * hidden["steps_per_s"])
    assert 5 < hidden["steps_per_s"] < 50  # a step of 0.02 s
    assert hidden["mfu"] is hidden["device_memory_bytes"] is None  # unknown for a CPU


def test_utilisation_and_memory_of_a_known_chip():
    throughput = Throughput(32, Chip())
    throughput.step_flops = 197e12 / 4
    time.sleep(0.05)
    rates = throughput.rates(2)
    assert rates["mfu"] == pytest.approx(rates["steps_per_s"] / 4)
    assert rates["device_memory_bytes"] == 123


@pytest.mark.parametrize(
    ("device_kind", "peak"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", None),
        ("cpu", None),
    ],
)
def test_chips_are_found_by_device_kind(device_kind, peak):
    chip = find_chip(device_kind)
    assert (chip and chip.flops_per_s) == peak


@pytest.mark.parametrize("text", ["10", "15:10", "0:3", "a:b", "1:2:3"])
def test_wrong_forms_of_profile_steps_are_rejected(text):
    with pytest.raises(UserError, match=f"--profile_steps={text}: expected FIRST:LAST"):
        parse_steps(text)


def test_only_the_requested_steps_are_traced(tmp_path):
    assert parse_steps("") is None
    with pytest.raises(UserError, match="--profile_steps=2:4, but the run takes only 3 steps"):
        StepTrace(tmp_path, (2, 4), 3)
    trace, add = StepTrace(tmp_path, parse_steps("2:3"), 3), jax.jit(lambda x: x + 1)
    for number in (1, 2, 3):
        trace.before(number)
        result = add(number)
        assert trace._tracing == (number > 1)
        trace.after(number, result)
    assert not trace._tracing
    assert list(tmp_path.glob("profile/plugins/profile/*/*.xplane.pb"))
