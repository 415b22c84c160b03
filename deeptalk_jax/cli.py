"""What every command-line tool does around its work: flags, errors for people, compilation cache, logging."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from deeptalk_jax.errors import Interrupted, LostProcess, UserError
from deeptalk_jax.files import is_remote

_CONFIG_FLAG = "config"  # of the tools that take a config file
CACHE_VARIABLE = "DEEPTALK_CACHE_DIR"
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h


def run_tool(command: Callable[..., int | None], *, takes_arguments: bool = False) -> None:
    """Parses the flags, runs a tool and exits.

    The exit status is 0 (or what the tool returns), 2 with one line for a `UserError` or a flag that cannot be read,
    or 75 with one line for `Interrupted` and `LostProcess`.

    Args:
        command: the tool's work; its flags are parsed when it is called.
        takes_arguments: plain arguments may stand between the flags; the tool gets them as a list.
    """
    flags.FLAGS.set_gnu_getopt(takes_arguments)

    def main(argv: Sequence[str]) -> int | None:
        if takes_arguments:
            return command(list(argv[1:]))
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; flags look like --name=value")
        return command()

    try:
        app.run(lambda argv: sys.exit(_prepared(main, argv) or 0), flags_parser=_parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except LostProcess as lost:
        print(lost, file=sys.stderr, flush=True)
        os._exit(EXIT_INTERRUPTED)  # at exit JAX would wait for the others
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _prepared(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int | None:
    # Orbax, grain and TFDS report every file that they touch.
    logging.set_verbosity(logging.WARNING)
    use_compilation_cache()
    return main(argv)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        arguments = flags.FLAGS(argv)
    except (flags.Error, ValueError) as error:  # a config file raises ValueError for its own argument
        raise UserError(_one_line(str(error))) from error
    except (AttributeError, KeyError) as error:  # what a config says of a key that it lacks
        if message := _unknown_key(argv, error):
            raise UserError(message) from error
        raise
    if _CONFIG_FLAG in flags.FLAGS:
        _check_config_file(config_flags.get_config_filename(flags.FLAGS[_CONFIG_FLAG]))
    return arguments


def _one_line(message: str) -> str:
    """A message of a flag; of the traceback in one of `config_flags` only what was raised."""
    before, traceback, lines = message.partition("Traceback (most recent call last):")
    if not traceback:
        return message.replace("\n", " ")
    return f"{before.partition(': Error')[0]}: {lines.strip().splitlines()[-1].partition(': ')[2]}"


def _unknown_key(argv: Sequence[str], error: Exception) -> str | None:
    """What to say where a flag names a key that the config lacks; None where no flag has the name in the error."""
    cause = error.args[0] if error.args and isinstance(error.args[0], KeyError) else error
    key, _, hint = str(cause.args[0] if cause.args else "").partition("\n")
    key = key.strip("\"'")
    for word in argv:
        if key in word.partition("=")[0].split(".")[1:]:
            return f"{word}: the config has no key {key!r}; {hint}".rstrip("; ")
    return None


def _check_config_file(path: str | None) -> None:
    """`config_flags` takes a file that does not exist, and raises where the config is first read."""
    file = (path or "").partition(":")[0]
    if file and not Path(file).is_file():
        raise UserError(f"flag --{_CONFIG_FLAG}={path}: there is no file {file}")


def use_compilation_cache() -> None:
    """Keeps XLA's compilations in DEEPTALK_CACHE_DIR, local or remote; by default `.cache/jax` in this directory."""
    import jax  # here, not above: printing help must not wait for it

    directory = os.environ.get(CACHE_VARIABLE, ".cache/jax")
    directory = directory if is_remote(directory) else str(Path(directory).absolute())
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
