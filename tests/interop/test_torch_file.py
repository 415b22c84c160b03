"""The PyTorch file reader: parity with torch, hostile pickles, and errors for unusable files."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.interop.torch_file import read_torch_file

FILES = Path(__file__).parents[1] / "goldens" / "torch_files"


def rewrite(source, target, change):
    """Copies an archive; `change(name, data)` returns the new data of an entry, or None to drop it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def with_pickle(path, content):
    """Writes a file in PyTorch's layout with an arbitrary pickled object."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made/data.pkl", pickle.dumps(content, protocol=2))
    return path


def test_arrays_equal_those_read_by_torch():
    expected = np.load(FILES / "tensors.npz")
    arrays = read_torch_file(FILES / "tensors.pt")
    assert set(arrays) == set(expected.files)
    for name, array in arrays.items():
        if name != "model.bfloat16":  # npz files cannot store this type.
            assert array.dtype == expected[name].dtype, name
        assert array.shape == expected[name].shape, name
        np.testing.assert_array_equal(array.astype(expected[name].dtype), expected[name], err_msg=name)
    assert arrays["model.bfloat16"].dtype.name == "bfloat16"


def test_tensors_of_one_storage_share_read_only_memory():
    arrays = read_torch_file(FILES / "tensors.pt")
    assert np.shares_memory(arrays["model.slice"], arrays["model.transposed"])
    assert not any(array.flags.writeable for array in arrays.values() if array.size)


def test_configuration_objects_are_left_out():
    arrays = read_torch_file(str(FILES / "with_config.pt"))
    assert list(arrays) == ["model.weight"]


class Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "attack",
    [Attack(os.system, "touch {}"), Attack(eval, "open('{}', 'w')"), Attack(io.open, "{}", "w")],
    ids=["system", "eval", "open"],
)
def test_hostile_pickle_is_refused_by_name(tmp_path, attack):
    victim = tmp_path / "victim"
    attack.call = attack.call[0], tuple(arg.format(victim) for arg in attack.call[1])
    path = with_pickle(tmp_path / "hostile.bin", {"weight": attack})
    with pytest.raises(UserError, match=r"hostile.bin: the pickle asks for \w+\.\w+"):
        read_torch_file(path)
    assert not victim.exists()


def test_error_of_the_legacy_format_explains_how_to_convert():
    with pytest.raises(UserError, match=r"legacy.pt: .*before 1.6.*save it again with torch.save"):
        read_torch_file(FILES / "legacy.pt")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated_file_raises_user_error(tmp_path, keep):
    data = (FILES / "tensors.pt").read_bytes()
    path = tmp_path / "short.bin"
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(UserError, match=r"short.bin: the file is truncated or damaged"):
        read_torch_file(path)


def test_flipped_bit_raises_user_error(tmp_path):
    data = bytearray((FILES / "tensors.pt").read_bytes())
    storage = np.load(FILES / "tensors.npz")["model.float"].tobytes()
    data[data.index(storage) + 5] ^= 1
    path = tmp_path / "flipped.bin"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"flipped.bin: "):
        read_torch_file(path)


def test_files_of_other_kinds_raise_user_error(tmp_path):
    with pytest.raises(UserError, match=r"nothing.pt: no such file"):
        read_torch_file(tmp_path / "nothing.pt")
    with pytest.raises(UserError, match=r": this is a directory; expected a PyTorch file"):
        read_torch_file(tmp_path)
    (tmp_path / "zero.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"zero.pt: the file is empty"):
        read_torch_file(tmp_path / "zero.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UserError, match=r"text.pt: this is not a PyTorch file"):
        read_torch_file(tmp_path / "text.pt")
    with pytest.raises(UserError, match=r"tensors.npz: this zip archive was not written by PyTorch"):
        read_torch_file(FILES / "tensors.npz")
    with pytest.raises(UserError, match=r"empty.pt: it contains no tensors"):
        read_torch_file(with_pickle(tmp_path / "empty.pt", {"epoch": 3}))
    loop = {}
    loop["self"] = loop
    with pytest.raises(UserError, match=r"loop.pt: a container in it contains itself"):
        read_torch_file(with_pickle(tmp_path / "loop.pt", loop))


def test_missing_and_short_storages_raise_user_error(tmp_path):
    def without(name, data):
        return None if name.endswith("data/0") else data

    with pytest.raises(UserError, match=r"a.pt: .*data/0"):
        read_torch_file(rewrite(FILES / "with_config.pt", tmp_path / "a.pt", without))

    def shorter(name, data):
        return data[:-4] if name.endswith("data/0") else data

    with pytest.raises(UserError, match=r"b.pt: .*storage 0 has 8 bytes; expected 3 numbers"):
        read_torch_file(rewrite(FILES / "with_config.pt", tmp_path / "b.pt", shorter))


def test_big_endian_files_and_torchscript_programs_are_refused(tmp_path):
    def big(name, data):
        return b"big" if name.endswith("byteorder") else data

    with pytest.raises(UserError, match="big-endian"):
        read_torch_file(rewrite(FILES / "with_config.pt", tmp_path / "a.pt", big))
    path = with_pickle(tmp_path / "b.pt", {})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("made/code/__torch__.py", "")
    with pytest.raises(UserError, match="TorchScript"):
        read_torch_file(path)


def test_compressed_entries_are_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("made/data.pkl", pickle.dumps({}))
    with pytest.raises(UserError, match="compressed"):
        read_torch_file(path)


@pytest.mark.parametrize("sizes", [b"K\x04\x85q", b"K\xff\x85q"], ids=["one_more", "many_more"])
def test_tensor_cannot_reach_outside_its_storage(tmp_path, sizes):
    def larger(name, data):
        changed = data.replace(b"K\x03\x85q", sizes)
        assert not name.endswith("data.pkl") or changed != data
        return changed if name.endswith("data.pkl") else data

    with pytest.raises(UserError, match="reaches beyond its storage of 3 numbers"):
        read_torch_file(rewrite(FILES / "with_config.pt", tmp_path / "a.pt", larger))


def with_program(path, program):
    """Writes a file in PyTorch's layout with a hand-written pickle and one storage of 16 bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made/data.pkl", b"\x80\x02" + program + b".")
        archive.writestr("made/data/0", bytes(16))
    return path


_STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
# Every list contains the previous list twice, which gives 2^22 items in two hundred bytes.
_DOUBLING = b"(]" + b"".join(b"q%c](h%ch%ce" % (n, n, n) for n in range(22)) + b"t"


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n(" + _STORAGE + b"K\0J\0\0\0\x04\x85K\0\x85tR",
            r"shape \(67108864,\) reaches beyond its storage of 4 numbers",
        ),
        (b"cbuiltins\nbytes\n\x8a\x06\0\0\0\0\0\x7f\x85R", "it contains no tensors"),
        (b"K\x01r\xff\xff\xff\0", "memo index 16777215 in a pickle of"),
        (_DOUBLING, "more than 1,000,000 items"),
    ],
    ids=["stride_0", "bytes", "memo", "doubling"],
)
def test_small_files_cannot_allocate_much_memory(tmp_path, program, message):
    with pytest.raises(UserError, match=message):
        read_torch_file(with_program(tmp_path / "bomb.pt", program))
