"""The one error that a person, not a programmer, is meant to read."""


class UserError(ValueError):
    """Something outside the program is wrong: a file, a flag, a directory.

    The message is one line that names the thing, what is wrong with it and what was expected. Command-line
    tools print it without a traceback and exit with status 2; a batch reports it and goes on.
    """
