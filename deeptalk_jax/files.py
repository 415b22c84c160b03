"""Files that appear whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from etils import epath

AnyPath = TypeVar("AnyPath", Path, epath.Path)


def is_remote(path: epath.PathLike) -> bool:
    """Whether a path is in an object store, as `gs://bucket/directory`, which only `etils.epath` opens."""
    return "://" in os.fspath(path)


@contextmanager
def replace_when_whole(path: AnyPath) -> Iterator[AnyPath]:
    """Gives a temporary name beside `path`; moves it there on success, removes it on failure."""
    # Hosts that share the directory may share process numbers too.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
