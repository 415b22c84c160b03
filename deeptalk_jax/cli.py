"""What every command-line tool does around its work: flags, errors for people, compilation cache, logging."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from deeptalk_jax.errors import Interrupted, LostProcess, UserError
from deeptalk_jax.interop.files import is_remote

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
        return flags.FLAGS(argv)
    except (flags.Error, ValueError) as error:  # a config file raises ValueError for its own argument
        raise UserError(str(error).replace("\n", " ")) from error


def use_compilation_cache() -> None:
    """Keeps XLA's compilations in DEEPTALK_CACHE_DIR, local or remote; by default `.cache/jax` in this directory."""
    import jax  # here, not above: printing help must not wait for it

    directory = os.environ.get(CACHE_VARIABLE, ".cache/jax")
    directory = directory if is_remote(directory) else str(Path(directory).absolute())
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
