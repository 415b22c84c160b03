"""A writer of PyTorch checkpoint files that needs no PyTorch."""

import collections
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np

_STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
}


class _Global:
    """A reference `module.name` in the pickle; the module need not be installed."""

    def __init__(self, module, name):
        self.line = f"c{module}\n{name}\n".encode()

    def __call__(self):
        raise AssertionError("a reference is written, never called")


class _Storage:
    def __init__(self, array):
        self.array = array


class _TorchPickler(pickle._Pickler):
    """Writes arrays as `torch.save` writes tensors; an array that occurs twice is stored once."""

    dispatch = pickle._Pickler.dispatch.copy()

    def __init__(self, stream):
        super().__init__(stream, protocol=2)
        self.storages = {}

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        key = self.storages.setdefault(id(obj.array), (str(len(self.storages)), obj.array))[0]
        kind = _Global("torch", _STORAGES[obj.array.dtype.name])
        return ("storage", kind, key, "cpu", obj.array.size)

    def _save_global(self, obj):
        self.write(obj.line)

    def _save_array(self, array):
        strides = tuple(step // array.itemsize for step in array.strides)
        rebuild = _Global("torch._utils", "_rebuild_tensor_v2")
        arguments = (_Storage(array), 0, array.shape, strides, False, collections.OrderedDict())
        self.save_reduce(rebuild, arguments, obj=array)

    dispatch[_Global] = _save_global
    dispatch[np.ndarray] = _save_array


def write_torch(path, content):
    """Writes what `torch.save(content, path)` would; `content` nests containers of C-contiguous arrays."""
    stream = io.BytesIO()
    pickler = _TorchPickler(stream)
    pickler.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        root = Path(path).stem
        archive.writestr(f"{root}/data.pkl", stream.getvalue())
        archive.writestr(f"{root}/byteorder", "little")
        for key, array in pickler.storages.values():
            archive.writestr(f"{root}/data/{key}", memoryview(array.reshape(-1)).cast("B"))
        archive.writestr(f"{root}/version", "3\n")
    return path
