"""How a tool ends when a person, not a programmer, is meant to read why."""


class UserError(ValueError):
    """Something outside the program is wrong: a file, a flag, a directory.

    The message is one line that names the thing, what is wrong with it and what was expected. Command-line
    tools print it without a traceback and exit with status 2; a batch reports it and goes on.
    """


class Interrupted(SystemExit):
    """A signal ended the run after its state was saved; the same command goes on from there.

    Command-line tools print the message and exit with status 75, by which a scheduler knows to start them again.
    """


class LostProcess(Interrupted):
    """Another process of this run is gone. Nothing that waits for it may run any more, not even at exit."""
