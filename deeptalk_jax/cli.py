"""The frame around every command-line tool: flags, errors as one line, compilation cache, logging."""

import difflib
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

import deeptalk_jax
from deeptalk_jax.errors import Interrupted, LostProcess, UserError
from deeptalk_jax.extras import advice
from deeptalk_jax.files import is_remote
from deeptalk_jax.signals import EXIT_INTERRUPTED, raise_on_signals, received_signal

CACHE_VARIABLE = "DEEPTALK_CACHE_DIR"
_CACHE_BYTES = 1 << 30  # a model of the demo takes 3 MB for three lengths of clips
EXIT_USER_ERROR = 2

# Flag of the tools that take a config file; `ml_collections.config_flags` defines it.
_CONFIG_FLAG = "config"
_CONFIG_WORD = re.compile(rf"--?{_CONFIG_FLAG}(=(?P<value>.*))?", re.DOTALL)
_OVERRIDE_WORD = re.compile(rf"--?(no)?{_CONFIG_FLAG}\.(?P<key>[^=]+)(=.*)?", re.DOTALL)
_WORKDIR_WORD = re.compile(r"--?workdir(=(?P<value>.*))?", re.DOTALL)
_OF_WORKDIR = Path(__file__).parents[1] / "configs" / "from_workdir.py"
HELP_WORDS = ("-h", "-?", "-help", "--help", "-helpshort", "--helpshort")
_FULL_HELP_WORDS = ("-helpfull", "--helpfull")
VERSION_WORDS = ("-version", "--version")


def run_tool(
    command: Callable[..., int | None],
    *,
    required: Sequence[str] = (),
    takes_arguments: bool = False,
    config_of_workdir: bool = False,
) -> None:
    """Parses the flags, runs a tool and exits.

    The exit status is 0 (or what the tool returns); 2, with one line on stderr, for a `UserError`, a flag that cannot
    be parsed, or a package that is not installed (`extras.advice`); or 75, with one line on stderr, for `Interrupted`
    and `LostProcess`. Ctrl-C and SIGTERM raise `Interrupted`, see `signals.raise_on_signals`.

    Args:
        command: runs the tool; called after the flags are parsed.
        required: names of flags that must be given.
        takes_arguments: the tool takes plain arguments besides flags; `command` gets them as a list.
        config_of_workdir: without --config, the config is that of the run in --workdir.
    """
    raise_on_signals()
    flags.FLAGS.set_gnu_getopt(takes_arguments)

    def main(argv: Sequence[str]) -> int | None:
        if takes_arguments:
            return command(list(argv[1:]))
        if len(argv) > 1:
            raise UserError(f"unexpected argument {argv[1]!r}; flags have the form --name=value")
        return command()

    try:
        app.run(
            lambda argv: sys.exit(_prepared(main, argv) or 0),
            flags_parser=partial(
                _parse_flags,
                module=command.__module__,
                required=required,
                config_of_workdir=config_of_workdir,
            ),
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except ModuleNotFoundError as missing:
        if not (line := advice(missing)):
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)
    except LostProcess as lost:
        print(lost, file=sys.stderr, flush=True)
        os._exit(EXIT_INTERRUPTED)  # a normal exit of JAX would wait for the other processes
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception:
        if received_signal() is None:
            raise
        print(f"interrupted by {received_signal()}", file=sys.stderr)  # a library has replaced the exception
        sys.exit(EXIT_INTERRUPTED)


def _prepared(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int | None:
    # At level INFO, Orbax, grain and TFDS report every file that they open.
    logging.set_verbosity(logging.WARNING)
    use_compilation_cache()
    return main(argv)


def version_line() -> str:
    """Returns what `--version` prints."""
    return f"deeptalk_jax {deeptalk_jax.__version__}"


def _adopt(module: str) -> None:
    """Makes absl's help describe the module of a tool where another script, such as `deeptalk`, has started it."""
    if module != "__main__":
        sys.modules["__main__"].__doc__ = sys.modules[module].__doc__
        for flag in flags.FLAGS.get_key_flags_for_module(module):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _parse_flags(
    argv: Sequence[str], *, module: str, required: Sequence[str], config_of_workdir: bool
) -> list[str]:
    if any(word in (*HELP_WORDS, *_FULL_HELP_WORDS) for word in argv[1:]):
        _adopt(module)
        # absl's own --help exits with status 1.
        short = not any(word in _FULL_HELP_WORDS for word in argv[1:])
        app.usage(shorthelp=short, writeto_stdout=True, exitcode=0)
    if any(word in VERSION_WORDS for word in argv[1:]):
        print(version_line())
        sys.exit(0)
    try:
        if _CONFIG_FLAG in flags.FLAGS:
            argv = [argv[0], *flags.FLAGS.read_flags_from_files(list(argv[1:]), force_gnu=False)]
            if config_of_workdir and not any(_CONFIG_WORD.fullmatch(word) for word in argv[1:]):
                argv[1:1] = [f"--{_CONFIG_FLAG}={_OF_WORKDIR}:{path}" for path in _workdirs(argv)]
            # config_flags looks for overrides here. It would not open a --flagfile, because it takes the name of the
            # program for the end of the flags.
            sys.argv[:] = argv
            _check_config(argv)
        arguments = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(str(error).replace("\n", " ")) from error
    for name in required:
        if flags.FLAGS[name].value is None:
            raise UserError(f"--{name}: required, give --{name}=VALUE ({flags.FLAGS[name].help.rstrip('.')})")
    return arguments


def _workdirs(argv: Sequence[str]) -> list[str]:
    """Returns the last value of --workdir, or nothing."""
    values = []
    for word, following in itertools.pairwise([*argv[1:], ""]):
        if match := _WORKDIR_WORD.fullmatch(word):
            values = [following if match["value"] is None else match["value"]]
    return values


def _check_config(argv: Sequence[str]) -> None:
    """Checks the config file and the keys of its overrides, before `config_flags` parses them.

    `config_flags` reports a missing file only where the config is first read, and an unknown key as a KeyError, which
    would end in a traceback.

    Raises:
        UserError: the file is missing, it rejects its argument, or an override names a key that it does not have.
    """
    value = None
    for word, following in itertools.pairwise([*argv[1:], ""]):
        if match := _CONFIG_WORD.fullmatch(word):
            value = following if match["value"] is None else match["value"]
    if value is None:
        return
    config = _load_config(value)
    for word in argv[1:]:
        if match := _OVERRIDE_WORD.fullmatch(word):
            _check_key(word, match["key"], config)


def _load_config(value: str) -> ConfigDict:
    """Returns what `get_config` of the file of `--config=FILE[:ARGUMENT]` returns."""
    file, colon, argument = value.partition(":")
    if not Path(file).is_file():
        raise UserError(f"flag --{_CONFIG_FLAG}={value}: there is no file {file}")
    spec = importlib.util.spec_from_file_location("config_file", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.get_config(*([argument] if colon else []))
    except ValueError as error:  # the documented way of `get_config` to reject its argument
        raise UserError(f"flag --{_CONFIG_FLAG}={value}: {error}") from error


def _check_key(word: str, key: str, config: ConfigDict) -> None:
    section = config
    for name in key.split("."):
        choices = list(section) if isinstance(section, ConfigDict) else []
        if name not in choices:
            near = difflib.get_close_matches(name, choices, n=1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"expected one of: {', '.join(choices) or 'none'}"
            )
            raise UserError(f"{word}: the config has no key {name!r} there; {hint}")
        section = section[name]


def use_compilation_cache() -> None:
    """Stores XLA's compiled programs on disk, so that the next process need not compile them again.

    The directory is DEEPTALK_CACHE_DIR, local or remote. The default is `deeptalk_jax/jax` in the user's cache
    directory, XDG_CACHE_HOME or `~/.cache`, which is kept below `_CACHE_BYTES`. A directory that
    `jax_compilation_cache_dir` names already is kept. Where the directory cannot be written, programs are compiled in
    every process.
    """
    import jax  # not at the top of the file, so that --help does not wait for it
    from jax.experimental.compilation_cache import compilation_cache

    if jax.config.jax_compilation_cache_dir:
        return
    given = os.environ.get(CACHE_VARIABLE)
    try:
        directory = given or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "deeptalk_jax", "jax")
        if not is_remote(directory):
            directory = Path(directory).expanduser().absolute()
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(f"{directory} cannot be written")
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        logging.warning("no cache of compiled programs: %s", error)
        return
    if not given:
        # Not where the user names a directory: JAX cannot bound one that was filled without a bound before.
        jax.config.update("jax_compilation_cache_max_size", _CACHE_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    # JAX decides at the first compilation whether there is a cache, and a Python user may have compiled already.
    compilation_cache.reset_cache()
