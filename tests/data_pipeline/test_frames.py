"""Tests of labelled single frames: reading files, rejecting invalid ones, and batches."""

import csv

import numpy as np
import pytest

from data_pipeline.frames import (
    FrameKeys,
    Frames,
    frame_counts,
    frame_loader,
    frames_basis,
    frames_in_order,
    read_frames,
    split_file,
)
from deeptalk_jax.errors import ConfigError, UserError
from deeptalk_jax.head.basis import PUBLISHED

KEYS = FrameKeys()
RNG = np.random.default_rng(0)
EXPRESSION = RNG.standard_normal((4, 50)).astype(np.float32)
POSE = RNG.uniform(-0.5, 0.5, (4, 6)).astype(np.float32)
LABELS = np.array(["neutral", "Anger", "surprised", "7"])
CLASSES = [0, 6, 3, 7]


def arrays(**changes):
    return {"expression": EXPRESSION, "jaw_pose": POSE[:, 3:], "emotion": LABELS} | changes


def write_npz(path, **changes):
    np.savez(path, **arrays(**changes))
    return path


def write_csv(path, change=lambda row: row, rows=range(4)):
    """Writes the same frames with the columns in reverse order and one additional column."""
    names = [
        *(f"expression_{i}" for i in range(50)),
        *(f"jaw_pose_{i}" for i in range(3)),
        "emotion",
        "image",
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names[::-1], extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            values = [*EXPRESSION[row], *POSE[row, 3:], LABELS[row], "face.png"]
            writer.writerow(change(dict(zip(names, values, strict=True)) | {"row": row}))
    return path


def check(frames):
    np.testing.assert_array_equal(frames.emotion, CLASSES)
    np.testing.assert_allclose(frames.motion, np.hstack([EXPRESSION, POSE[:, 3:]]), rtol=1e-6)
    assert (frames.motion.dtype, frames.emotion.dtype) == (np.float32, np.int32)


def test_npz_and_csv_files_give_the_same_frames(tmp_path):
    check(read_frames(write_npz(tmp_path / "a.npz"), KEYS))
    check(read_frames(write_csv(tmp_path / "a.CSV"), KEYS))


def test_other_array_names_6_dim_poses_and_numeric_labels_are_read(tmp_path):
    path = tmp_path / "emoca.npz"
    np.savez(path, exp=EXPRESSION, pose=POSE, label=np.array(CLASSES), shape=np.zeros((4, 100)))
    check(read_frames(path, FrameKeys("exp", "pose", "label")))


def test_names_and_widths_of_trackers_are_read_where_the_default_names_are_missing(tmp_path):
    more = np.concatenate([EXPRESSION, EXPRESSION], axis=1)
    np.savez(tmp_path / "vhap.npz", expr=more, pose=POSE, emotion=LABELS)
    check(read_frames(tmp_path / "vhap.npz", KEYS))
    assert frames_basis(tmp_path / "vhap.npz") is None
    write_npz(tmp_path / "a.npz", **PUBLISHED.arrays())
    check(read_frames(tmp_path / "a.npz", KEYS))
    assert frames_basis(tmp_path / "a.npz") == PUBLISHED
    assert frames_basis(write_csv(tmp_path / "a.csv")) is None
    with pytest.raises(
        UserError, match=r"b.npz: not a file of labelled frames \(the name of a basis is empty"
    ):
        frames_basis(write_npz(tmp_path / "b.npz", basis=np.array("")))


def with_text_in_row_2(row):
    return row | ({"expression_7": "n/a"} if row["row"] == 2 else {})


def without_last_jaw_column(row):
    return {name: value for name, value in row.items() if name != "jaw_pose_2"}


def with_value(array, place, value):
    changed = array.copy()
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"expression": EXPRESSION[:, :49]},
            r"expression has shape \(4, 49\), expected rows of 50 or 100 numbers$",
        ),
        ({"jaw_pose": POSE[:, :4]}, r"jaw_pose has shape \(4, 4\), expected rows of 3 or 6 numbers"),
        ({"jaw_pose": POSE[:3]}, "4 rows of expression, 3 of jaw_pose and 4 of emotion"),
        ({"expression": EXPRESSION.astype(int)}, "expression holds int64, expected floating-point"),
        ({"emotion": LABELS[:, None]}, r"emotion has shape \(4, 1\), expected \[n\]"),
        (
            {"emotion": np.array([0, 1, 8, 2])},
            "row 2: unknown emotion '8'; expected one of: 0 neutral, 1 happy",
        ),
        ({"emotion": np.array([0.0, 1, 2, 2.5])}, "row 0: unknown emotion '0.0'"),
        ({"emotion": np.array(["happy"] * 4, object)}, "cannot be read .*allow_pickle"),
        (
            {"expression": with_value(EXPRESSION, (3, 11), np.nan)},
            r"row 3, expression\[11\]: nan is not finite",
        ),
        (
            {"jaw_pose": with_value(POSE[:, 3:], (1, 0), 20.0)},
            r"row 1, jaw_pose\[0\]: 20 is out of range; expected radians in \[-pi, pi\]",
        ),
        ({name: values[:0] for name, values in arrays().items()}, "holds no frames; expected at least one"),
    ],
)
def test_npz_with_invalid_arrays_is_rejected(tmp_path, changes, message):
    path = write_npz(tmp_path / "a.npz", **changes)
    with pytest.raises(UserError, match=message) as error:
        read_frames(path, KEYS)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_npz_with_a_missing_array_and_other_files_are_rejected(tmp_path):
    with pytest.raises(UserError, match="has no array 'exp'; found: expression, jaw_pose, emotion"):
        read_frames(write_npz(tmp_path / "a.npz"), KEYS._replace(expression="exp"))
    for name, content in (("text.npz", b"no archive"), ("cut.npz", b"PK\x03\x04cut off")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            read_frames(tmp_path / name, KEYS)
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, EXPRESSION)
    with pytest.raises(UserError, match="is a single array; expected an npz archive"):
        read_frames(tmp_path / "single.npz", KEYS)


def test_invalid_csv_missing_file_and_unknown_suffix_are_rejected(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, with_text_in_row_2)
    with pytest.raises(UserError, match=r"a.csv: row 2, column expression_7: 'n/a'; expected a number"):
        read_frames(path, KEYS)
    write_csv(path, rows=())
    with pytest.raises(UserError, match="holds no frames; expected at least one"):
        read_frames(path, KEYS)
    path.write_text("expression_0,emotion\n1.0,happy\n")
    with pytest.raises(UserError, match=r"has no column 'expression_1'; 52 columns are missing in all"):
        read_frames(path, KEYS)
    write_csv(path, without_last_jaw_column)
    with pytest.raises(UserError, match="row 0, column jaw_pose_2: ''; expected a number"):
        read_frames(path, KEYS)
    with pytest.raises(UserError, match=r"cannot be read \(.*No such file"):
        read_frames(tmp_path / "none.csv", KEYS)
    with pytest.raises(
        UserError, match=r"a.txt: expected a file of labelled frames that ends in \.npz or \.csv"
    ):
        read_frames(tmp_path / "a.txt", KEYS)


def test_split_file_replaces_the_split_field():
    assert str(split_file("data/{split}/frames.npz", "test")) == "data/test/frames.npz"
    with pytest.raises(ConfigError, match=r"data.frames_file='frames.npz': expected \{split\} in place of"):
        split_file("frames.npz", "train")


@pytest.fixture
def frames():
    """Ten frames; all entries of a frame are its index."""
    number = np.arange(10)
    return Frames(np.repeat(number, 53).reshape(10, 53).astype(np.float32), (number % 8).astype(np.int32))


def test_each_epoch_has_every_frame_once_in_a_new_order(frames):
    np.testing.assert_array_equal(frame_counts(frames), [2, 2, 1, 1, 1, 1, 1, 1])
    batches = frame_loader(frames, batch_size=5, seed=1)
    epochs = [[next(batches) for _ in range(2)] for _ in range(2)]
    orders = [np.concatenate([batch["motion"][:, 0, 0] for batch in epoch]) for epoch in epochs]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(10))
    assert (orders[0] != orders[1]).any()
    first = epochs[0][0]
    assert first["motion"].shape == (5, 1, 53)
    np.testing.assert_array_equal(first["emotion"], first["motion"][:, 0, 0] % 8)
    np.testing.assert_array_equal(first["num_frames"], np.ones(5))


def test_processes_share_each_batch_of_frames(frames):
    whole = next(frame_loader(frames, batch_size=4, seed=1))
    parts = [
        next(frame_loader(frames, batch_size=4, seed=1, num_processes=2, process_index=index))
        for index in range(2)
    ]
    np.testing.assert_array_equal(np.concatenate([part["emotion"] for part in parts]), whole["emotion"])
    with pytest.raises(UserError, match="batch_size=5: expected a positive multiple of num_processes=2"):
        frame_loader(frames, batch_size=5, seed=1, num_processes=2)


def test_frames_in_order_pads_the_last_batch(frames):
    batches = list(frames_in_order(frames, 4))
    assert [batch["motion"].shape for batch in batches] == [(4, 1, 53)] * 3
    valid = np.concatenate([batch["valid"] for batch in batches])
    np.testing.assert_array_equal(valid, [True] * 10 + [False] * 2)
    np.testing.assert_array_equal(np.concatenate([batch["num_frames"] for batch in batches]), valid)
    np.testing.assert_array_equal(
        np.concatenate([batch["motion"][:, 0, 0] for batch in batches])[valid], np.arange(10)
    )
    np.testing.assert_array_equal(batches[-1]["emotion"], [0, 1, -1, -1])
