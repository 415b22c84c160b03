"""`Basis`: heads tell which movements their coefficients stand for, and two that disagree are told apart."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import (
    EMBEDDED,
    PUBLISHED,
    Basis,
    basis_of_arrays,
    basis_of_record,
    check_basis,
    directions_digest,
    flame_name,
)
from deeptalk_jax.head.load import basis_of_head, load_head, save_head
from deeptalk_jax.head.model import JAW


def digest_of(head):
    return directions_digest(
        head.expression_directions, head.joint_regressor[JAW], head.skinning_weights[:, JAW]
    )


@pytest.fixture(scope="module")
def flame_file(synthetic_flame_arrays, tmp_path_factory):
    """`(file name, changed entries) -> path` of a file in FLAME's layout."""

    def write(name, **changes):
        path = tmp_path_factory.mktemp("flame") / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(pickle.dumps({**synthetic_flame_arrays, **changes}))
        return path

    return write


def test_the_embedded_head_has_the_recorded_directions(head):
    assert head.basis == basis_of_head("procedural") == EMBEDDED
    assert digest_of(head) == EMBEDDED.sha256, (
        "the directions of the embedded head have changed: models and data sets of the old ones no longer fit, so "
        "EMBEDDED in head/basis.py needs a new version and this hash"
    )


def test_the_hash_follows_expression_and_jaw_only(flame_file, synthetic_flame_arrays):
    first = load_head(str(flame_file("flame2023.pkl"))).basis
    assert first.name == "flame2023" and first.version == ""
    directions, weights = (synthetic_flame_arrays[name].copy() for name in ("shapedirs", "weights"))
    directions[:, :, 2] += 1.0  # identity
    assert basis_of_head(str(flame_file("flame2023.pkl", shapedirs=directions))) == first
    directions[3, 1, 301] += 1e-3
    weights[2, JAW] += 0.01
    others = [
        flame_file("flame2023.pkl", **change) for change in ({"shapedirs": directions}, {"weights": weights})
    ]
    hashes = {basis_of_head(str(path)).sha256 for path in others} | {first.sha256}
    assert len(hashes) == 3


def test_a_saved_head_keeps_its_basis(flame_file, head, tmp_path):
    flame = load_head(str(flame_file("flame2020.pkl")))
    for name, one in (("flame.npz", flame), ("embedded.npz", head)):
        save_head(tmp_path / name, one)
        again = load_head(str(tmp_path / name))
        assert again.basis == one.basis and again.surface.mask_source == one.surface.mask_source
    save_head(tmp_path / "own.npz", replace(flame, basis=None, name="my head"))
    assert basis_of_head(str(tmp_path / "own.npz")) == Basis("custom", sha256=flame.basis.sha256)
    save_head(tmp_path / "old.npz", replace(flame, basis=None, name="flame2023.pkl"))
    assert basis_of_head(str(tmp_path / "old.npz")) == Basis("flame2023", sha256=flame.basis.sha256)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("flame2023_no_jaw.pkl", "models"), "flame2023"),
        (("generic_model.pkl", "FLAME2020"), "flame2020"),
        (("flame2023.pkl", "FLAME2020"), "flame2023"),
        (("generic_model.pkl", "models"), "flame"),
    ],
)
def test_the_year_of_flame_comes_from_file_or_folder(names, expected):
    assert flame_name(*names) == expected


A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        (EMBEDDED, replace(EMBEDDED, sha256=A), True),  # computed: last bits may differ
        (EMBEDDED, replace(EMBEDDED, version="2"), False),
        (EMBEDDED, PUBLISHED, False),
        (EMBEDDED, Basis("custom", sha256=EMBEDDED.sha256), False),
        (PUBLISHED, Basis("flame", sha256=A), True),  # the year of the file is not known
        (PUBLISHED, Basis("flame2020", sha256=A), True),
        (PUBLISHED, Basis("flame2023", sha256=A), False),
        (PUBLISHED, Basis("custom", sha256=A), False),
        (Basis("flame", sha256=A), Basis("flame2020", sha256=A), True),
        (Basis("flame2020", sha256=A), Basis("flame2020", sha256=B), False),
        (Basis("custom", sha256=A), Basis("flame2020", sha256=A), True),  # a converted file
    ],
)
def test_agreement(first, second, agree):
    assert first.agrees_with(second) == second.agrees_with(first) == agree


def test_records_are_read_again_and_old_files_follow_their_head():
    for basis in (EMBEDDED, PUBLISHED):
        assert basis_of_record(basis.record(), "any.pkl") == basis_of_arrays(basis.arrays()) == basis
    assert basis_of_record(None, "procedural") == basis_of_arrays({}, "procedural") == EMBEDDED
    assert basis_of_record(None, "flame.pkl") is basis_of_record(None) is basis_of_arrays({}) is None
    for damaged in ("embedded", {"name": 3}, {"name": ""}, {"label": "embedded"}):
        with pytest.raises((TypeError, ValueError)):
            basis_of_record(damaged)


def test_a_disagreement_is_one_line_with_both_and_the_advice():
    with pytest.raises(UserError) as error:
        check_basis(
            Basis("flame2023", sha256=A),
            EMBEDDED,
            source="--head=f.pkl",
            other="the model m",
            advice="leave it out",
        )
    assert str(error.value) == (
        "--head=f.pkl: has the basis flame2023 (sha256 aaaaaaaa), but the model m has the basis embedded 1, "
        "so the same coefficients mean other movements; leave it out"
    )
    check_basis(None, EMBEDDED, source="a", other="b", advice="c")
    check_basis(PUBLISHED, None, source="a", other="b", advice="c")


def test_numbers_in_arrays_of_a_basis_are_read_as_text():
    arrays = {"basis": np.array("embedded"), "basis_version": np.array(1)}
    assert basis_of_arrays(arrays) == Basis("embedded", version="1")
