"""Loading and saving heads: FLAME formats, hostile pickles, and one-line errors for unusable files."""

import io
import os
import pickle
import sys
import types

import jax
import numpy as np
import pytest
from scipy import sparse

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.load import load_head, save_head
from deeptalk_jax.head.model import describe_masks
from deeptalk_jax.head.unpickle import NUMPY_GLOBALS, restricted_load

NUM_VERTICES = 23


@pytest.fixture
def flame():
    rng = np.random.default_rng(0)
    regressor = rng.random((5, NUM_VERTICES)) * (rng.random((5, NUM_VERTICES)) < 0.4)
    weights = rng.random((NUM_VERTICES, 5))
    return {
        "v_template": 0.1 * rng.standard_normal((NUM_VERTICES, 3)),
        "f": rng.integers(0, NUM_VERTICES, (31, 3)).astype(np.uint32),
        "shapedirs": rng.standard_normal((NUM_VERTICES, 3, 400)),
        "posedirs": rng.standard_normal((NUM_VERTICES, 3, 36)),
        "J_regressor": regressor,
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "bs_type": "lrotmin",
    }


@pytest.fixture
def chumpy(monkeypatch):
    """A stand-in module with chumpy's name and pickle format; tests remove it before they read the file."""
    module, package = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy")

    class Ch:
        def __init__(self, x):
            self.x, self.label = x, "made up"

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch, package.ch = Ch, module
    monkeypatch.setitem(sys.modules, "chumpy", package)
    monkeypatch.setitem(sys.modules, "chumpy.ch", module)
    return Ch


def written(path, contents, protocol=2):
    path.write_bytes(pickle.dumps(contents, protocol=protocol))
    return path


def assert_holds(head, flame):
    np.testing.assert_allclose(head.template, flame["v_template"], rtol=1e-6)
    np.testing.assert_allclose(head.shape_directions, flame["shapedirs"][..., :100], rtol=1e-6)
    np.testing.assert_allclose(head.expression_directions, flame["shapedirs"][..., 300:350], rtol=1e-6)
    np.testing.assert_allclose(head.pose_directions[7], flame["posedirs"][..., 7], rtol=1e-6)
    np.testing.assert_allclose(head.joint_regressor, flame["J_regressor"], rtol=1e-6)
    np.testing.assert_array_equal(head.faces, flame["f"])
    assert head.faces.dtype == np.int32 and head.parents == (-1, 0, 1, 1, 1)


@pytest.mark.parametrize("protocol", [0, 2])
def test_flame_pickle_with_chumpy_and_sparse_arrays(tmp_path, flame, chumpy, monkeypatch, protocol):
    stored = dict(flame, J_regressor=sparse.csc_matrix(flame["J_regressor"]))
    for name in ("v_template", "shapedirs", "weights"):
        stored[name] = chumpy(flame[name])
    path = written(tmp_path / "generic_model.pkl", stored, protocol)
    monkeypatch.delitem(sys.modules, "chumpy.ch")
    monkeypatch.delitem(sys.modules, "chumpy")
    assert_holds(load_head(str(path)), flame)


@pytest.mark.parametrize("to_sparse", [sparse.csr_matrix, sparse.coo_matrix, sparse.csc_array])
def test_other_sparse_formats(tmp_path, flame, to_sparse):
    stored = dict(flame, J_regressor=to_sparse(flame["J_regressor"]))
    assert_holds(load_head(str(written(tmp_path / "flame2023.pkl", stored))), flame)


def test_python_2_strings_are_read_as_latin1(tmp_path, flame):
    # Python 2 stores the bytes of an array as a str, with the opcode BINSTRING, which Python 3 never writes.
    class Python2Pickler(pickle._Pickler):
        dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

        def save_bytes(self, obj):
            self.write(pickle.BINSTRING + len(obj).to_bytes(4, "little") + obj)
            self.memoize(obj)

        dispatch[bytes] = save_bytes

    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(flame)
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(stream.getvalue())
    assert_holds(load_head(str(path)), flame)


def test_flame_npz(tmp_path, flame):
    path = tmp_path / "flame.npz"
    np.savez(path, **{k: v for k, v in flame.items() if k != "bs_type"})
    assert_holds(load_head(str(path)), flame)


def test_mask_file_in_the_model_folder_is_used(tmp_path, flame):
    written(
        tmp_path / "FLAME_masks.pkl",
        {n: np.array([5, 3]) for n in ("lips", "eye_region", "forehead", "face")},
    )
    head = load_head(str(written(tmp_path / "generic_model.pkl", flame)))
    np.testing.assert_array_equal(head.masks["eyes"], [3, 5])
    expected = f"vertices: lips 2, eyes 2, forehead 2, face 2; from {tmp_path / 'FLAME_masks.pkl'}"
    assert describe_masks(head) == expected
    (tmp_path / "FLAME_masks.pkl").rename(tmp_path / "masks.pkl")
    boxes = load_head(str(tmp_path / "generic_model.pkl")).surface.mask_source
    assert boxes == f"boxes around the eye joints (no {tmp_path / 'FLAME_masks.pkl'})"
    written(tmp_path / "FLAME_masks.pkl", {"lips": np.array([3])})
    with pytest.raises(UserError, match=r"FLAME_masks.pkl: no entry eye_region"):
        load_head(str(tmp_path / "generic_model.pkl"))


def test_geometric_masks_find_the_lips_of_the_embedded_head(head):
    from deeptalk_jax.head.flame_masks import geometric_masks

    template = np.asarray(head.template)
    masks = geometric_masks(template, np.asarray(head.joint_regressor) @ template)
    assert set(head.masks["lips"]) - set(head.masks["mouth_interior"]) <= set(masks["lips"])
    assert np.isin(masks["eyes"], masks["face"]).all() and len(masks["forehead"]) > 50


class Hostile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_hostile_pickle_is_refused_without_running_it(tmp_path, flame):
    mark = tmp_path / "was_run"
    path = written(tmp_path / "generic_model.pkl", dict(flame, v_template=Hostile(mark)))
    with pytest.raises(UserError, match=r"generic_model.pkl: the pickle asks for posix.system.*refused"):
        load_head(str(path))
    assert not mark.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"c__builtin__\ngetattr\n.",
        b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.",
        b"c_codecs\nencode\n(S'a'\nS'rot13'\ntR.",
    ],
)
def test_pickles_that_call_other_functions_are_refused(tmp_path, program):
    path = tmp_path / "generic_model.pkl"
    path.write_bytes(program)
    with pytest.raises(UserError, match=r"the pickle asks for"):
        load_head(str(path))


class OfType:
    """Pickles as an array of 8 bytes with an arbitrary dtype and dtype state."""

    def __init__(self, *dtype):
        self.dtype = dtype

    def __reduce__(self):
        reconstruct, arguments, state = np.zeros(1).__reduce__()
        dtype = type("_", (), {"__reduce__": lambda _: (np.dtype, *self.dtype)})()
        return reconstruct, arguments, (*state[:2], dtype, False, bytes(8))


def test_dtypes_that_reach_outside_the_array_are_refused(tmp_path, flame):
    far = (3, "|", None, ("a",), {"a": (np.dtype("f8"), 1 << 30)}, 8, 1, 0)
    for dtype in ((("V8",), far), (("O",),)):
        path = written(tmp_path / "generic_model.pkl", dict(flame, v_template=OfType(*dtype)))
        with pytest.raises(UserError, match=r"the pickle asks for array of type '(V8|O)'"):
            load_head(str(path))
    path.write_bytes(b"cnumpy\nndarray\n(J\0\0\0\x40tR.")
    with pytest.raises(UserError, match=r"not a readable pickle"):
        load_head(str(path))


def test_persistent_ids_are_passed_to_persistent_load():
    class Persistent(pickle.Pickler):
        def persistent_id(self, obj):
            return "kept aside" if isinstance(obj, set) else None

    stream = io.BytesIO()
    Persistent(stream, protocol=2).dump({"a": {1}})
    load = lambda **more: restricted_load(  # noqa: E731
        io.BytesIO(stream.getvalue()), source="x.pt", expected="a test", allowed=NUMPY_GLOBALS, **more
    )
    assert load(persistent_load=lambda pid: pid.upper()) == {"a": "KEPT ASIDE"}
    with pytest.raises(UserError, match=r"x.pt: the pickle asks for a persistent id"):
        load()


def test_truncated_and_text_files_raise_user_error(tmp_path, flame):
    whole = pickle.dumps(flame, protocol=2)
    path = tmp_path / "generic_model.pkl"
    for contents in (whole[: len(whole) // 2], b"", b"<html>Sign in to download</html>"):
        path.write_bytes(contents)
        with pytest.raises(
            UserError, match=r"generic_model.pkl: not a readable pickle .*expected a FLAME model"
        ):
            load_head(str(path))
    archive = tmp_path / "flame.npz"
    np.savez(archive, a=np.zeros(3))
    archive.write_bytes(archive.read_bytes()[:40])
    with pytest.raises(UserError, match=r"flame.npz: not a readable npz"):
        load_head(str(archive))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "entry weights does not hold an array"),
        ({"posedirs": np.zeros((NUM_VERTICES, 3, 207))}, "entry posedirs has shape .* expected 23 x 3 x 36"),
        (
            {"shapedirs": np.zeros((NUM_VERTICES, 3, 10))},
            "shapedirs has 10 directions, expected at least 300",
        ),
        ({"f": np.full((2, 3), 99)}, r"faces refer to vertices outside 0\.\.22"),
        ({"kintree_table": np.zeros((2, 5), int)}, "joint parents"),
        ({"v_template": np.zeros(())}, "entry v_template has shape"),
    ],
)
def test_wrong_array_in_a_flame_file_raises_user_error(tmp_path, flame, change, message):
    path = written(tmp_path / "generic_model.pkl", flame | change)
    with pytest.raises(UserError, match=message) as caught:
        load_head(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_protocol_5_give_the_head_of_protocol_4(tmp_path, flame, order):
    arrays = {
        name: np.asarray(array, order=order) for name, array in flame.items() if isinstance(array, np.ndarray)
    }
    expected = load_head(str(written(tmp_path / "protocol_4.pkl", flame, protocol=4)))
    path = written(tmp_path / "protocol_5.pkl", flame | arrays, protocol=5)
    assert b"_frombuffer" in path.read_bytes()
    for found, wanted in zip(*map(jax.tree.leaves, (load_head(str(path)), expected)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    # numpy 1 writes the same function under another name.
    assert (
        NUMPY_GLOBALS["numpy.core.numeric", "_frombuffer"]
        is NUMPY_GLOBALS["numpy._core.numeric", "_frombuffer"]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((b"12345678", np.dtype("f8"), (2,), "C"), "array of shape .* from 8 bytes"),
        ((b"12345678", np.dtype("f8"), (1,), "K"), "array from bytes in order 'K'"),
        (("12345678", np.dtype("f8"), (1,), "C"), "array from str in order 'C'"),
    ],
)
def test_arrays_of_protocol_5_take_no_memory_beyond_their_bytes(arguments, message):
    class Buffer:
        def __reduce__(self):
            return np._core.numeric._frombuffer, arguments

    with pytest.raises(UserError, match=message):
        restricted_load(io.BytesIO(pickle.dumps(Buffer(), protocol=5)), source="a", expected="arrays")


def test_objects_in_an_npz_matter_only_where_they_are_needed(tmp_path, flame):
    arrays = {
        name: np.asarray(array.todense() if sparse.issparse(array) else array)
        for name, array in flame.items()
    }
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez(tmp_path / "stray.npz", **arrays, part_names=np.array({"jaw": 2}, dtype=object))
    heads = [load_head(str(tmp_path / name)) for name in ("plain.npz", "stray.npz")]
    for found, wanted in zip(*map(jax.tree.leaves, heads), strict=True):
        np.testing.assert_array_equal(found, wanted)
    np.savez(tmp_path / "needed.npz", **arrays | {"weights": np.array({"jaw": 2}, dtype=object)})
    with pytest.raises(UserError, match=r"entry weights does not hold an array of numbers, as np\.savez"):
        load_head(str(tmp_path / "needed.npz"))


def test_missing_entries_and_files_of_other_types_raise_user_error(tmp_path, flame):
    path = written(
        tmp_path / "generic_model.pkl", {k: v for k, v in flame.items() if k not in ("f", "weights")}
    )
    with pytest.raises(UserError, match=r"no entry f, weights; expected a FLAME model"):
        load_head(str(path))
    with pytest.raises(UserError, match=r"holds a list, not a dictionary"):
        load_head(str(written(path, [1, 2])))
    with pytest.raises(UserError, match=r'no such file; expected "procedural" or'):
        load_head(str(tmp_path / "absent.pkl"))
    other = tmp_path / "head.obj"
    other.write_text("v 0 0 0")
    with pytest.raises(UserError, match=r"unknown file extension '.obj'"):
        load_head(str(other))


def test_saved_head_loads_as_an_equal_head(tmp_path, head):
    path = tmp_path / "head.npz"
    save_head(path, head)
    again = load_head(str(path))
    assert again.surface == head.surface and hash(again.surface) == hash(head.surface)
    assert jax.tree.structure(again) == jax.tree.structure(head)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(head), strict=True):
        np.testing.assert_array_equal(one, other)
    assert os.listdir(tmp_path) == ["head.npz"]
    with pytest.raises(UserError, match=r"heads are written as .npz"):
        save_head(tmp_path / "head.pkl", head)
