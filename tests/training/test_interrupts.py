"""Signals as a flag that the training loop reads."""

import os
import signal

import pytest

from deeptalk_jax.training.interrupts import Interrupts, Signalled


@pytest.mark.parametrize("number", Interrupts.SIGNALS)
def test_the_first_signal_sets_a_flag_and_the_second_acts_as_usual(number):
    seen = []
    before = signal.signal(number, lambda *_: seen.append(number))
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), number)
            assert interrupts.received == number.name
            assert not seen
            os.kill(os.getpid(), number)
            assert seen == [number]
        assert signal.getsignal(number) is not None
    finally:
        signal.signal(number, before)


def test_a_signal_stops_long_work_at_once():
    with Interrupts() as interrupts:
        with pytest.raises(Signalled, match="SIGTERM"), interrupts.raising():
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("went on")
        with pytest.raises(Signalled), interrupts.raising():  # the signal arrived before the work
            raise AssertionError("began")
    with Interrupts() as interrupts:
        with interrupts.raising():
            pass
        signal.raise_signal(signal.SIGTERM)  # after the work a signal sets the flag again
        assert interrupts.received == "SIGTERM"
