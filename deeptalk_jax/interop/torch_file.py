"""Reads PyTorch's `.pt`, `.pth` and `.bin` files into numpy arrays, without PyTorch.

Such a file is a zip of one pickle (`data.pkl`), which describes tensors, and one uncompressed entry per
storage (`data/<key>`). A pickle can name any function to be called while it loads; here only those on a short
list are honoured, everything else is refused by name. Classes of training configurations (omegaconf, fairseq)
are replaced by inert stand-ins, since the files of fairseq hold them beside the weights.
"""

import io
import math
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.unpickle import PickledState, restricted_load

_STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
# Packages whose classes become stand-ins: configuration and bookkeeping beside the weights.
_INERT_PACKAGES = (
    "omegaconf",
    "fairseq",
    "examples",
    "funasr",
    "argparse",
    "typing",
    "enum",
    "numpy",
    "_codecs",
)
# Named by configurations only. Called, the real ones could make much of little: bytes(10**12).
_PLAIN_TYPES = ("dict", "list", "tuple", "set", "int", "float", "bool", "str", "bytes", "complex")
# Far more than any checkpoint holds; what holds more refers to the same containers over and over.
_MOST_ITEMS = 1_000_000


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Inert(PickledState):
    """Stands in for an object of a class that is not loaded: takes everything, does nothing."""

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        """Ignores an item of a list."""

    def extend(self, _items: Any) -> None:
        """Ignores items of a list."""


def _plain_dict(*_factory: Any) -> dict:
    return {}


def _inert_attribute(*_owner_and_name: Any) -> _Inert:
    """What pickles of enumerations call `getattr` for."""
    return _Inert()


def _rebuild_tensor(storage, offset, size, stride, *_rest) -> np.ndarray:
    """A strided view of a storage; checked, as strides from a file could reach outside."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or any(type(n) is not int or n < 0 for n in numbers):
        raise UserError(f"a tensor has impossible sizes {size!r}, strides {stride!r} or offset {offset!r}")
    if len(size) != len(stride):
        raise UserError(f"a tensor has {len(size)} sizes but {len(stride)} strides")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, storage.dtype)
    # Strides of 0 would make a tensor of any size from one number.
    if last >= storage.size or math.prod(size) > storage.size:
        raise UserError(f"a tensor of shape {size} reaches beyond its storage of {storage.size} numbers")
    byte_strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, byte_strides)


def _rebuild_parameter(tensor: np.ndarray, *_rest) -> np.ndarray:
    return tensor


class _TorchGlobals(dict):
    """What the pickle may name; classes of some packages all give the stand-in."""

    def __missing__(self, key: tuple[str, str]) -> Any:
        if key[0].split(".")[0] in _INERT_PACKAGES:
            return _Inert
        raise KeyError(key)


_GLOBALS = _TorchGlobals(
    {
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): _plain_dict,
        ("torch", "Size"): tuple,
        ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()},
        **{(module, name): _Inert for name in _PLAIN_TYPES for module in ("builtins", "__builtin__")},
        ("builtins", "getattr"): _inert_attribute,
        ("__builtin__", "getattr"): _inert_attribute,
    }
)


class _Storages:
    """Reads the storages of one archive, each once: tensors may share them."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive = archive
        self._root = root
        self._arrays: dict[str, np.ndarray] = {}

    def __call__(self, pid: Any) -> np.ndarray:
        """The storage of a persistent id `("storage", type, key, device, count)`, flat."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise UserError(f"it refers to {str(pid)[:80]!r} where a storage was expected")
        _, kind, key, _, count = pid
        if not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise UserError(f"it names a storage of an unknown type: {str(pid)[:80]!r}")
        if key not in self._arrays:
            data = _stored_bytes(self._archive, f"{self._root}data/{key}")
            if len(data) != count * kind.dtype.itemsize:
                raise UserError(f"storage {key} has {len(data)} bytes where {count} numbers were announced")
            self._arrays[key] = np.frombuffer(data, kind.dtype)
        storage = self._arrays[key]
        if storage.dtype != kind.dtype:
            raise UserError(f"storage {key} is used with two types, {storage.dtype} and {kind.dtype}")
        return storage


def _stored_bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    """One entry. PyTorch never compresses, and what is not compressed cannot unfold into more than the file."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise UserError(f"entry {name} is compressed, which PyTorch's files never are")
    return archive.read(name)


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a file that `torch.save` wrote.

    Args:
        path: a file in the zip format (PyTorch 1.6 of 2020 and later).

    Returns:
        Array of every tensor by name, read-only; tensors that share a storage in the file share memory. Nested
        dictionaries and lists are flattened with dots: the tensor `b` in the dictionary `model` becomes `model.b`.
        What is no tensor is left out. bfloat16 comes as `ml_dtypes.bfloat16`.

    Raises:
        UserError: the file is missing, damaged or truncated, in the format before 1.6, or its pickle asks for
            anything but tensors; the message names the file and the cause.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: {'a directory, not a file' if path.is_dir() else 'no such file'}")
    try:
        with zipfile.ZipFile(path) as archive:
            content = _unpickle(archive, path)
        return _flatten(content)
    except UserError as error:
        # What the pickle reader says begins with the file's name already.
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: {_why_no_zip(path)}") from error
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(f"{path}: the file is damaged: {type(error).__name__}: {error}") from error


def _unpickle(archive: zipfile.ZipFile, path: Path) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError("it is a zip, but not one of PyTorch's: it should hold exactly one data.pkl")
    if any("/code/" in name for name in names):
        raise UserError("it is a TorchScript program; save the state_dict of the model instead")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in names and _stored_bytes(archive, order) != b"little":
        raise UserError("it was written on a big-endian machine; save it again on another one")
    pickled = io.BytesIO(_stored_bytes(archive, pickles[0]))
    return restricted_load(
        pickled,
        source=str(path),
        expected="a file of tensors from torch.save",
        allowed=_GLOBALS,
        persistent_load=_Storages(archive, root),
    )


def _why_no_zip(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "the file is empty"
    if start[:2] == b"PK":
        return "the file is truncated or damaged; copy or download it again"
    if start[:1] == b"\x80":
        return (
            "the file is in PyTorch's format from before 1.6 (a bare pickle), which is not read; "
            "load it in PyTorch and save it again with torch.save"
        )
    return "this is not a PyTorch file (no zip archive)"


def _flatten(content: Any) -> dict[str, np.ndarray]:
    """Tensors of nested containers, names joined with dots."""
    arrays: dict[str, np.ndarray] = {}
    open_ids: set[int] = set()
    num_items = 0

    def visit(value, name):
        nonlocal num_items
        num_items += 1
        if num_items > _MOST_ITEMS:
            raise UserError(f"it holds more than {_MOST_ITEMS:,} items, which no checkpoint does")
        if isinstance(value, np.ndarray):
            if name in arrays:
                raise UserError(f"two tensors have the name {name!r} once nesting is written with dots")
            arrays[name] = value
            return
        if isinstance(value, Mapping):
            items = list(value.items())
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))
        else:
            return
        if id(value) in open_ids:
            raise UserError("its containers hold themselves")
        open_ids.add(id(value))
        for key, item in items:
            visit(item, f"{name}.{key}" if name else str(key))
        open_ids.remove(id(value))

    visit(content, "")
    if not arrays:
        raise UserError("it holds no tensors")
    return arrays
