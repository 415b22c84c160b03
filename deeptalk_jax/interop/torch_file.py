"""Reads PyTorch's `.pt`, `.pth` and `.bin` files into numpy arrays, without PyTorch.

Such a file is a zip archive with one pickle (`data.pkl`) that describes the tensors, and one uncompressed entry per
storage (`data/<key>`). A pickle can call any function by name while it loads. This reader allows only the names on a
short list and refuses all others. Classes of training configurations (omegaconf, fairseq), which fairseq stores next to
the weights, are replaced by inert objects.
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
# Packages of configuration and bookkeeping classes, which are replaced by inert objects.
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
# Types that configurations refer to. They are inert too, because a call can allocate any amount: bytes(10**12).
_PLAIN_TYPES = ("dict", "list", "tuple", "set", "int", "float", "bool", "str", "bytes", "complex")
# Far more items than any checkpoint has. A small file reaches more only by repeating references to its containers.
_MOST_ITEMS = 1_000_000


class _StorageType(NamedTuple):
    dtype: np.dtype


class _Inert(PickledState):
    """Replaces an object of a class that is not loaded; it accepts all operations of a pickle and ignores them."""

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass

    def append(self, _item: Any) -> None:
        """Ignores an item that the pickle appends."""

    def extend(self, _items: Any) -> None:
        """Ignores items that the pickle appends."""


def _plain_dict(*_factory: Any) -> dict:
    return {}


def _inert_attribute(*_owner_and_name: Any) -> _Inert:
    """Replaces `getattr`, which pickles of enumerations call."""
    return _Inert()


def _rebuild_tensor(storage, offset, size, stride, *_rest) -> np.ndarray:
    """Returns a strided view of a storage, after checking that it does not reach outside the storage."""
    numbers = (offset, *size, *stride)
    if not isinstance(storage, np.ndarray) or any(type(n) is not int or n < 0 for n in numbers):
        raise UserError(f"a tensor has invalid sizes {size!r}, strides {stride!r} or offset {offset!r}")
    if len(size) != len(stride):
        raise UserError(f"a tensor has {len(size)} sizes but {len(stride)} strides; expected equal numbers")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return np.zeros(size, storage.dtype)
    # The second test refuses strides of 0, which can make a tensor of any size from one number.
    if last >= storage.size or math.prod(size) > storage.size:
        raise UserError(f"a tensor of shape {size} reaches beyond its storage of {storage.size} numbers")
    byte_strides = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, byte_strides)


def _rebuild_parameter(tensor: np.ndarray, *_rest) -> np.ndarray:
    return tensor


class _TorchGlobals(dict):
    """Names that the pickle may use; all names of the inert packages give the inert class."""

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
    """Reads the storages of one archive; each is read once, because tensors may share it."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        self._archive = archive
        self._root = root
        self._arrays: dict[str, np.ndarray] = {}

    def __call__(self, pid: Any) -> np.ndarray:
        """Returns the flat storage of a persistent id `("storage", type, key, device, count)`."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise UserError(f"it refers to {str(pid)[:80]!r}; expected a storage")
        _, kind, key, _, count = pid
        if not isinstance(kind, _StorageType) or not isinstance(key, str):
            raise UserError(f"it refers to a storage of an unknown type: {str(pid)[:80]!r}")
        if key not in self._arrays:
            data = _stored_bytes(self._archive, f"{self._root}data/{key}")
            if len(data) != count * kind.dtype.itemsize:
                raise UserError(
                    f"storage {key} has {len(data)} bytes; expected {count} numbers of type {kind.dtype}"
                )
            self._arrays[key] = np.frombuffer(data, kind.dtype)
        storage = self._arrays[key]
        if storage.dtype != kind.dtype:
            raise UserError(
                f"storage {key} is used with two types, {storage.dtype} and {kind.dtype}; expected one"
            )
        return storage


def _stored_bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    """Reads one entry of an archive and refuses compression.

    PyTorch never compresses entries, and an uncompressed entry cannot be larger than the file.
    """
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise UserError(f"entry {name} is compressed; expected uncompressed entries, as PyTorch writes them")
    return archive.read(name)


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Reads all tensors of a file written by `torch.save`.

    Args:
        path: a file in the zip format, which PyTorch writes since version 1.6 (2020).

    Returns:
        Tensor name -> read-only array. Tensors that share a storage in the file share memory. Nested dictionaries and
        lists are flattened with dots: the tensor `b` in the dictionary `model` becomes `model.b`. Values that are not
        tensors are left out. bfloat16 tensors have the type `ml_dtypes.bfloat16`.

    Raises:
        UserError: The file is missing, damaged, truncated or in the format before 1.6, or its pickle uses names that
            tensors do not need; the message names the file and the cause.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: {'this is a directory' if path.is_dir() else 'no such file'}; expected a PyTorch file"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            content = _unpickle(archive, path)
        return _flatten(content)
    except UserError as error:
        # Messages of the pickle reader already begin with the file name.
        raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: {_why_not_a_zip(path)}") from error
    except Exception as error:  # A damaged archive can raise any exception.
        raise UserError(f"{path}: the file is damaged: {type(error).__name__}: {error}") from error


def _unpickle(archive: zipfile.ZipFile, path: Path) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UserError("this zip archive was not written by PyTorch: expected exactly one data.pkl in it")
    if any("/code/" in name for name in names):
        raise UserError("this is a TorchScript program; save the state_dict of the model instead")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in names and _stored_bytes(archive, order) != b"little":
        raise UserError("it was written on a big-endian machine; save it again on a little-endian one")
    pickled = io.BytesIO(_stored_bytes(archive, pickles[0]))
    return restricted_load(
        pickled,
        source=str(path),
        expected="a file of tensors from torch.save",
        allowed=_GLOBALS,
        persistent_load=_Storages(archive, root),
    )


def _why_not_a_zip(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        return "the file is empty"
    if start[:2] == b"PK":
        return "the file is truncated or damaged; copy or download it again"
    if start[:1] == b"\x80":
        return (
            "the file is in PyTorch's format from before 1.6 (a bare pickle), which is not supported; "
            "load it in PyTorch and save it again with torch.save"
        )
    return "this is not a PyTorch file; expected a zip archive"


def _flatten(content: Any) -> dict[str, np.ndarray]:
    """Returns the tensors in nested containers; names of the levels are joined with dots."""
    arrays: dict[str, np.ndarray] = {}
    open_ids: set[int] = set()
    num_items = 0

    def visit(value, name):
        nonlocal num_items
        num_items += 1
        if num_items > _MOST_ITEMS:
            raise UserError(f"it contains more than {_MOST_ITEMS:,} items; checkpoints have far fewer")
        if isinstance(value, np.ndarray):
            if name in arrays:
                raise UserError(f"two tensors have the name {name!r} after nested names are joined with dots")
            arrays[name] = value
            return
        if isinstance(value, Mapping):
            items = list(value.items())
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))
        else:
            return
        if id(value) in open_ids:
            raise UserError("a container in it contains itself")
        open_ids.add(id(value))
        for key, item in items:
            visit(item, f"{name}.{key}" if name else str(key))
        open_ids.remove(id(value))

    visit(content, "")
    if not arrays:
        raise UserError("it contains no tensors")
    return arrays
