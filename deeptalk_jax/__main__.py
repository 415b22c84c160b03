"""The command `deeptalk`, also started as `python -m deeptalk_jax`: one subcommand for each tool of the wheel."""

import difflib
import importlib
import sys

import deeptalk_jax
from deeptalk_jax.cli import EXIT_USER_ERROR, HELP_WORDS, VERSION_WORDS, version_line

# Subcommand -> module with `main`, and what it does. A module is imported only when its subcommand is called.
COMMANDS = {
    "animate": ("deeptalk_jax.tools.animate", "animates sound files"),
    "fit-identity": ("deeptalk_jax.tools.fit_identity", "fits the speaker identity of a new person"),
    "import-published": ("deeptalk_jax.tools.import_published", "imports the published checkpoints"),
}


def main() -> None:
    """Runs the subcommand that the first argument names; the other arguments are its flags."""
    word = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if word in HELP_WORDS:
        print(_help())
    elif word in VERSION_WORDS:
        print(version_line())
    elif word in COMMANDS:
        sys.argv[:] = [f"deeptalk {word}", *sys.argv[2:]]
        importlib.import_module(COMMANDS[word][0]).main()
    else:
        near = difflib.get_close_matches(word, COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(COMMANDS)}"
        print(f"error: deeptalk has no command {word!r}; {hint}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def _help() -> str:
    lines = [deeptalk_jax.__doc__.splitlines()[0], "", "deeptalk COMMAND --FLAG=VALUE ...", ""]
    lines += [f"  {name:<18} {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join([*lines, "", "`deeptalk COMMAND --help` lists the flags of a command."])


if __name__ == "__main__":
    main()
