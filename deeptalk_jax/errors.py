"""How a tool ends when a person, not a programmer, is meant to read why."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PACKAGE = Path(__file__).parent


class UserError(ValueError):
    """Something outside the program is wrong: a file, a flag, a directory.

    The message is one line that names the thing, what is wrong with it and what was expected. Command-line
    tools print it without a traceback and exit with status 2; a batch reports it and goes on.
    """


class ConfigError(UserError):
    """A value of a config, or a field of a module that a config sets, cannot be used.

    The message names the key, its value and what was expected.
    """


@contextmanager
def config_errors() -> Iterator[None]:
    """While a run is set up from its config: a `ValueError` that this package raises is about a value there.

    Raises:
        UserError: instead of such an error; those that come out of other packages, or of a call in our code, pass as
            they are: they are faults of ours.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not (Path(last.filename).is_relative_to(_PACKAGE) and last.line.startswith("raise ")):
            raise
        raise UserError(f"the config cannot be used: {error}") from error


class Interrupted(SystemExit):
    """A signal ended the run after its state was saved; the same command goes on from there.

    Command-line tools print the message and exit with status 75, by which a scheduler knows to start them again.
    """


class LostProcess(Interrupted):
    """Another process of this run is gone. Nothing that waits for it may run any more, not even at exit."""
