"""Paths in object stores, and files that are written completely or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from etils import epath

AnyPath = TypeVar("AnyPath", Path, epath.Path)

_NAME_BYTES = 200  # bytes of a name that the name of its temporary file keeps


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is in an object store, such as `gs://bucket/directory`; `etils.epath` opens it."""
    return "://" in os.fspath(path)


@contextmanager
def replace_when_whole(path: AnyPath) -> Iterator[AnyPath]:
    """Yields a temporary path beside `path`, which replaces `path` on success and is removed on failure."""
    # The name is random, because hosts that share the directory may also share process ids.
    # It is cut, because names have at most 255 bytes on most file systems.
    start = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    temporary = path.with_name(f".{start}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def printable(text: str) -> str:
    """Escapes line breaks, control characters and undecodable bytes, which file names may hold."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
