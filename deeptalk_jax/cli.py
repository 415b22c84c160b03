"""What every command-line tool does around its work: errors for people, compilation cache, logging."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import logging

from deeptalk_jax.errors import UserError

CACHE_VARIABLE = "DEEPTALK_CACHE_DIR"
EXIT_USER_ERROR = 2


def run_command(command: Callable[[], int | None], argv: list[str]) -> None:
    """Runs a tool and exits: 0 (or what the tool returns), or 2 with one line for a `UserError`.

    Args:
        command: the tool's work.
        argv: what flag parsing left over, the program first.
    """
    if len(argv) > 1:
        sys.exit(_complain(argv[0], f"unexpected argument {argv[1]!r}; flags look like --name=value"))
    logging.set_verbosity(logging.WARNING)
    use_compilation_cache()
    try:
        status = command()
    except UserError as error:
        status = _complain(argv[0], str(error))
    sys.exit(status or 0)


def _complain(program: str, message: str) -> int:
    print(f"{os.path.basename(program)}: {message}", file=sys.stderr)
    return EXIT_USER_ERROR


def use_compilation_cache() -> None:
    """Keeps XLA's compilations in DEEPTALK_CACHE_DIR, by default `.cache/jax` in the current directory."""
    import jax  # here, not above: printing help must not wait for it

    directory = Path(os.environ.get(CACHE_VARIABLE, ".cache/jax"))
    jax.config.update("jax_compilation_cache_dir", str(directory.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
