"""Turns Ctrl-C and SIGTERM (preemption) into a flag that the training loop reads between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from deeptalk_jax.signals import SIGNALS, note_signal


class Signalled(Exception):
    """A signal arrived inside `Interrupts.raising`."""


class Interrupts:
    """Catches the first signal while entered; a second one acts as it would without this class, and ends a tool.

    Attributes:
        received: name of the signal that was caught, or None.
    """

    SIGNALS = SIGNALS

    def __init__(self):
        self.received: str | None = None
        self._previous = {}
        self._raises = False

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        note_signal(self.received)
        signal.signal(number, self._previous[number])
        if self._raises:
            raise Signalled(self.received)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Runs long work that can be abandoned.

        Raises:
            Signalled: as soon as a signal arrives, or at the start if one has been caught before.
        """
        self._raises = True
        try:
            if self.received:
                raise Signalled(self.received)
            yield
        finally:
            self._raises = False

    def __enter__(self) -> "Interrupts":
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
