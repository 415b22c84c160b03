"""Ctrl-C and SIGTERM in command-line tools: an exception that ends the tool in order, at any moment of its life.

Python drops exceptions that are raised inside callbacks of the garbage collector, of which JAX has one. A signal that
arrives there would be lost, so it is raised again shortly after.
"""

import os
import signal
import sys
import threading
import time
from types import FrameType

from deeptalk_jax.errors import Interrupted

EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h
SIGNALS = (signal.SIGINT, signal.SIGTERM)
_RETRY_S = 0.1


class _State:
    """State of this process.

    Attributes:
        received: name of the first signal, or None.
        dropped: Python has dropped the exception of the first signal, and it will be raised again.
        installed: `raise_on_signals` has been called.
    """

    installed = False
    received: str | None = None
    dropped = False


def received_signal() -> str | None:
    """Returns the name of the first signal that this process has received, or None."""
    return _State.received


def note_signal(name: str) -> None:
    """Records that another handler has taken the first signal of a tool, so that the next one ends it at once."""
    if _State.installed:
        _State.received = _State.received or name


def raise_on_signals() -> None:
    """Makes the first SIGINT or SIGTERM raise `Interrupted`; a second one ends the process at once with status 75."""
    owner = os.getpid()
    _State.installed = True

    def handle(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if os.getpid() != owner:  # a forked worker, which the tool itself may terminate
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if _State.received and not _State.dropped:
            os._exit(EXIT_INTERRUPTED)
        _State.received, _State.dropped = name, False
        raise Interrupted(f"interrupted by {name}")

    report = sys.unraisablehook

    def raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
        if not isinstance(unraisable.exc_value, Interrupted):
            report(unraisable)
            return
        _State.dropped = True
        threading.Thread(target=_repeat_dropped, daemon=True).start()

    sys.unraisablehook = raise_again
    for number in SIGNALS:
        signal.signal(number, handle)


def _repeat_dropped() -> None:
    """Sends the first signal to the main thread until its handler has run again."""
    while True:
        time.sleep(_RETRY_S)
        if not _State.dropped:
            return
        signal.pthread_kill(threading.main_thread().ident, signal.Signals[_State.received])
