"""Ctrl-C and SIGTERM (preemption) as a flag that the loop reads between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType


class Signalled(Exception):
    """A signal came while `Interrupts.raising` was entered."""


class Interrupts:
    """While entered, the first signal sets `received`; a second one acts as usual."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.received: str | None = None
        self._previous = {}
        self._raises = False

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        signal.signal(number, self._previous[number])
        if self._raises:
            raise Signalled(self.received)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Around long work that may be given up: a signal ends it at once, with `Signalled`."""
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
