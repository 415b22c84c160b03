"""Progress bars, which become a line every 30 s where standard error is not a terminal, as in the log of a job."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

from tqdm import tqdm

_LINE_EVERY_S = 30


class _Lines(tqdm):
    """A bar that writes whole lines in place of one line that it overwrites."""

    @staticmethod
    def status_printer(file: TextIO) -> Callable[[str], None]:
        """Returns the function that writes the bar; tqdm itself ends the last line."""
        before = ""

        def write(status: str) -> None:
            nonlocal before
            file.write(before + status)
            file.flush()
            before = "\n"

        return write

    def close(self) -> None:
        """Writes the last line, even of a task that is too short for any other, unless the bar leaves nothing."""
        if self.leave and not self.disable:
            self.last_print_t = max(self.last_print_t, self.start_t + self.delay)
        super().close()

    def set_postfix(self, *arguments: Any, **values: Any) -> None:
        """Sets the text behind the bar for the next line."""
        super().set_postfix(*arguments, **{**values, "refresh": False})

    def set_postfix_str(self, text: str = "", refresh: bool = False) -> None:
        """Sets the text behind the bar for the next line."""
        super().set_postfix_str(text, refresh=False)


def progress_bar(*arguments: Any, **settings: Any) -> tqdm:
    """Returns `tqdm(...)`, which writes a line at most every 30 s, and one at its end, if stderr is not a terminal."""
    if sys.stderr.isatty():
        return tqdm(*arguments, **{"dynamic_ncols": True, **settings})
    return _Lines(
        *arguments, **settings, **dict.fromkeys(("mininterval", "maxinterval", "delay"), _LINE_EVERY_S)
    )
