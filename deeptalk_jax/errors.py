"""Errors that a user can fix. Command-line tools print them as one line, without a traceback."""


class UserError(ValueError):
    """Something outside the program is wrong, such as a file, a flag or a directory.

    The message is one line that says what was found, where, what was expected, and what to do. Command-line tools
    print it without a traceback and exit with status 2. A tool that works on many inputs reports it and continues.
    """


class ConfigError(UserError):
    """A value of a config, or a field of a module that a config sets, cannot be used.

    The message has the form `key=value: expected ...`.
    """


class Interrupted(SystemExit):
    """A signal ended the run after its state was saved; the same command resumes it.

    Command-line tools print the message and exit with status 75, which tells a scheduler to start them again.
    """


class LostProcess(Interrupted):
    """Another process of this run has ended. Nothing that waits for it may run any more, not even at exit."""
