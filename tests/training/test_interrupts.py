import os
import signal

import pytest

from deeptalk_jax.training.interrupts import Interrupts


@pytest.mark.parametrize("number", Interrupts.SIGNALS)
def test_first_signal_is_remembered_second_acts_as_usual(number):
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
