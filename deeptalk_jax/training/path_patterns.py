"""Parameters chosen by shell-style patterns of their paths, such as `speech_encoder/block_[0-5]/*`; `*` spans `/`."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from deeptalk_jax.errors import UserError

PyTree = Any


def first_matches(key: str, params: PyTree, patterns: Sequence[str]) -> dict[str, int]:
    """Path of every parameter that a pattern matches -> index of the first that does.

    Args:
        key: config key that holds the patterns, for the message.
        params: nested dicts.
        patterns: shell-style patterns of paths joined by `/`.

    Raises:
        UserError: a pattern matches no parameter.
    """
    paths = list(flatten_dict(params, sep="/"))
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            top = ", ".join(sorted({path.split("/")[0] for path in paths}))
            raise UserError(f"{key}: {pattern!r} matches no parameter; at the top there are: {top}")
    found = {}
    for path in paths:
        hits = (index for index, pattern in enumerate(patterns) if fnmatchcase(path, pattern))
        if (index := next(hits, None)) is not None:
            found[path] = index
    return found


def split_frozen(params: PyTree, patterns: Sequence[str]) -> tuple[PyTree, PyTree]:
    """The trained and the frozen part of `params`; `joined` puts them together again.

    Raises:
        UserError: a pattern matches no parameter, or nothing is left to train.
    """
    frozen_paths = first_matches("optimiser.frozen", params, patterns)
    flat = flatten_dict(params, sep="/")
    if len(frozen_paths) == len(flat):
        raise UserError(f"optimiser.frozen: {', '.join(patterns)} leaves nothing to train")
    frozen = {path: flat.pop(path) for path in frozen_paths}
    return unflatten_dict(flat, sep="/"), unflatten_dict(frozen, sep="/")


def joined(trained: PyTree, frozen: PyTree) -> PyTree:
    """All parameters, from the parts that `split_frozen` made."""
    return unflatten_dict({**flatten_dict(trained), **flatten_dict(frozen)})
