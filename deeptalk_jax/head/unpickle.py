"""Reads pickles of arrays without running code from them.

A pickle is a small program that can call any function by name. This reader resolves only the names in a table and
stops at the first other name. Classes of packages that need not be installed (chumpy, scipy.sparse) are replaced by
`PickledState`, which only stores the state from the file. The reader also serves other formats, such as PyTorch's
`.pt`, with another table and a `persistent_load` function.
"""

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from deeptalk_jax.errors import UserError

Globals = Mapping[tuple[str, str], Any]
_PLAIN_KINDS = "fiubcSU"  # dtype kinds of numbers and text


class RefusedGlobalError(pickle.UnpicklingError):
    """A pickle refers to a name outside the table of allowed names."""


class PickledState:
    """Replaces an instance of a class that is not loaded; stores its state and has no behaviour.

    Attributes:
        state: the instance dictionary (or other state) in the file; None if the file has none.
    """

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def get(self, *names: str) -> Any:
        """Returns the first of these entries that the state has, or None."""
        if isinstance(self.state, dict):
            for name in names:
                if name in self.state:
                    return self.state[name]
        return None


def _reconstruct_instance(cls: type, _base: Any = None, _state: Any = None) -> PickledState:
    if not (isinstance(cls, type) and issubclass(cls, PickledState)):
        raise RefusedGlobalError(f"object of {cls!r}")
    return cls()


class _ArrayClass:
    """Replaces the name `numpy.ndarray`, because calling the real class can allocate memory of any size."""


class _Dtype:
    """Replaces `numpy.dtype`, because the state of the real class can describe fields outside the array's memory."""

    kinds = _PLAIN_KINDS

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.kind not in self.kinds:
            raise RefusedGlobalError(f"array of type {code!r}")

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _ObjectDtype(_Dtype):
    """Replaces `numpy.dtype` and also allows arrays of other objects of the same pickle."""

    kinds = _PLAIN_KINDS + "O"


class _Array(np.ndarray):
    """An array that takes its shape, type and bytes, and nothing else, from the pickle."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, fortran, raw = state
        if isinstance(raw, list) and math.prod(shape) != len(raw):
            raise ValueError(f"array of shape {shape} from a list of {len(raw)} items")
        super().__setstate__((version, shape, dtype.dtype, fortran, raw))


def _reconstruct_array(cls: type, _shape: Any, _dtype: Any) -> np.ndarray:
    if cls is not _ArrayClass:
        raise RefusedGlobalError(f"array of {cls!r}")
    return _Array((0,), "b")  # __setstate__ sets the shape, dtype and bytes.


def _encode_latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedGlobalError(f"codec {encoding!r}")
    return text.encode("latin1")


def _numpy_scalar(dtype: _Dtype, raw: Any) -> Any:
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    return np.frombuffer(raw, dtype=dtype.dtype)[0]


def _array_from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Replaces `numpy.core.numeric._frombuffer`, by which protocol 5 stores contiguous arrays."""
    if not (isinstance(raw, bytes | bytearray) and isinstance(dtype, _Dtype) and order in ("C", "F")):
        raise RefusedGlobalError(f"array from {type(raw).__name__} in order {order!r}")
    if dtype.dtype.kind == "O" or math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise ValueError(f"array of shape {shape} and type {dtype.dtype} from {len(raw)} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _numpy_globals() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _ArrayClass,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode_latin1,
        ("collections", "OrderedDict"): OrderedDict,
    }
    for package in ("numpy.core", "numpy._core"):
        table[f"{package}.multiarray", "_reconstruct"] = _reconstruct_array
        table[f"{package}.multiarray", "scalar"] = _numpy_scalar
        table[f"{package}.numeric", "_frombuffer"] = _array_from_buffer
    return table


NUMPY_GLOBALS: Globals = _numpy_globals()
# Names in the pickles that `numpy.save` writes for arrays of objects.
OBJECT_ARRAY_GLOBALS: Globals = {**NUMPY_GLOBALS, ("numpy", "dtype"): _ObjectDtype}

_SPARSE_MODULES = ("csc", "csr", "coo", "_csc", "_csr", "_coo")
_CHUMPY_CLASSES = (
    ("chumpy.ch", "Ch"),
    ("chumpy.reordering", "Select"),
    ("chumpy.reordering", "Reshape"),
    ("chumpy.reordering", "Transpose"),
    ("chumpy.reordering", "Concatenate"),
    ("chumpy", "Ch"),
)

HEAD_MODEL_GLOBALS: Globals = {
    **NUMPY_GLOBALS,
    **{
        (f"scipy.sparse.{m}", f"{m.lstrip('_')}_{kind}"): PickledState
        for m in _SPARSE_MODULES
        for kind in ("matrix", "array")
    },
    **dict.fromkeys(_CHUMPY_CLASSES, PickledState),
    ("copy_reg", "_reconstructor"): _reconstruct_instance,
    ("copyreg", "_reconstructor"): _reconstruct_instance,
    ("__builtin__", "object"): PickledState,
    ("builtins", "object"): PickledState,
}


class _TableUnpickler(pickle.Unpickler):
    def __init__(self, stream: io.BufferedIOBase, allowed: Globals, persistent_load: Callable | None) -> None:
        super().__init__(stream, encoding="latin1")
        self._allowed = allowed
        self._persistent_load = persistent_load

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise RefusedGlobalError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent_load is None:
            raise RefusedGlobalError("a persistent id")
        return self._persistent_load(pid)


def restricted_load(
    stream: io.BufferedIOBase,
    *,
    source: str,
    expected: str,
    allowed: Globals = NUMPY_GLOBALS,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Unpickles a stream in which only the entries of a table can be called.

    Args:
        stream: binary stream, positioned at the start of the pickle.
        source: name of the file, used in error messages.
        expected: description of the expected file, used in error messages.
        allowed: (module, name) -> the object that replaces this name.
        persistent_load: function that resolves persistent ids; None refuses them.

    Returns:
        The unpickled object. Strings written by Python 2 are decoded as latin-1.

    Raises:
        UserError: The pickle refers to a name outside the table, is truncated, or is not a pickle.
    """
    program = stream.read()
    try:
        _check_memo(program)
        return _TableUnpickler(io.BytesIO(program), allowed, persistent_load).load()
    except RefusedGlobalError as error:
        raise UserError(
            f"{source}: the pickle asks for {error}, which {expected} does not need; "
            "the file was refused and none of its code was run"
        ) from None
    except Exception as error:  # A damaged pickle can raise almost any exception.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{source}: not a readable pickle ({reason}); expected {expected}") from None


def _check_memo(program: bytes) -> None:
    """Refuses memo indices that a pickle of this size cannot need.

    The interpreter allocates memory for all indices below the largest one.
    """
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name in ("PUT", "LONG_BINPUT") and argument > len(program):
            raise ValueError(f"memo index {argument} in a pickle of {len(program)} bytes")


def _dense_from_sparse(stored: PickledState) -> np.ndarray | None:
    shape, data = stored.get("_shape", "shape"), stored.get("data")
    indices, pointers = stored.get("indices"), stored.get("indptr")
    row, column = stored.get("row"), stored.get("col")
    if stored.get("coords") is not None:
        row, column = stored.get("coords")
    if shape is None or data is None:
        return None
    dense = np.zeros(tuple(int(n) for n in shape))
    if indices is not None and pointers is not None:
        major = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        # Compressed columns have one pointer more than columns. For square matrices, only the format tells.
        by_column = len(pointers) == dense.shape[1] + 1 and stored.get("format") != "csr"
        row, column = (indices, major) if by_column else (major, indices)
    if row is None or column is None:
        return None
    np.add.at(dense, (row, column), data)
    return dense


def as_array(value: Any) -> np.ndarray | None:
    """Returns the numbers of an unpickled array, sparse matrix or chumpy array.

    Args:
        value: an object from `restricted_load`.

    Returns:
        A dense NumPy array, or None if the value does not contain numbers.
    """
    if isinstance(value, PickledState):
        if value.get("data") is not None and value.get("_shape", "shape") is not None:
            try:
                return _dense_from_sparse(value)
            except (IndexError, TypeError, ValueError):
                return None
        return as_array(value.get("x", "a"))
    if isinstance(value, np.ndarray | np.generic | list | tuple):
        array = np.asarray(value)
        return array if array.dtype.kind in "fiub" else None
    return None
