"""Tests of unpacked splits: equal to the records, unpacked once, and unpacked again when the records change."""

import json
import multiprocessing
import shutil

import numpy as np
import pytest

from data_pipeline import loader, unpacked
from data_pipeline.records import open_split
from data_pipeline.registry import find_dataset
from data_pipeline.unpacked import unpacked_split
from deeptalk_jax.errors import ConfigError, UserError

SPLIT = "train[:6]"


def unpack(data_dir, unpack_dir, split=SPLIT):
    return unpacked_split(data_dir, "synthetic_talk", split, unpack_dir)


@pytest.fixture
def own_data(data_dir, tmp_path):
    """Copy of the dataset that a test may modify."""
    return shutil.copytree(data_dir, tmp_path / "data")


@pytest.fixture
def reads(monkeypatch):
    """List that grows by one entry each time the records are opened for unpacking."""
    opened = []

    def counted(*args, **kwargs):
        opened.append(args)
        return open_split(*args, **kwargs)

    monkeypatch.setattr(unpacked, "open_split", counted)
    return opened


def test_unpacked_clips_equal_the_records_and_are_unpacked_once(data_dir, tmp_path, reads):
    records = open_split(data_dir, "synthetic_talk", SPLIT)
    for _ in range(2):
        clips = unpack(data_dir, tmp_path)
        assert len(clips) == len(records) == 6
        for clip, record in zip(clips, records, strict=True):
            for name in ("audio", "motion", "visemes"):
                np.testing.assert_array_equal(getattr(clip, name), getattr(record, name))
                assert not getattr(clip, name).flags.owndata  # the array is a view of the mapped file
            assert (clip.labels, clip.clip_name, clip.text) == (record.labels, record.clip_name, record.text)
    assert len(reads) == 1
    with pytest.raises(IndexError, match="clip 6: expected 0 to 5"):
        clips[6]


def test_batches_of_unpacked_clips_equal_those_of_the_records(data_dir, tmp_path):
    arguments = {"batch_size": 8, "seed": 1, "window_frames": 32, "num_threads": 2}
    whole = loader.train_loader(data_dir, "synthetic_talk", **arguments)
    flat = loader.train_loader(data_dir, "synthetic_talk", unpack_dir=tmp_path, **arguments)
    for _ in range(10):
        expected, found = next(whole), next(flat)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_clips_without_visemes_are_unpacked(data_dir, tmp_path, monkeypatch):
    records = [
        record._replace(visemes=record.visemes[:0])
        for record in open_split(data_dir, "synthetic_talk", SPLIT)
    ]
    monkeypatch.setattr(unpacked, "open_split", lambda *args, **kwargs: records)
    clips = unpack(data_dir, tmp_path)
    assert [clip.visemes.shape for clip in clips] == [(0,)] * 6
    np.testing.assert_array_equal(clips[5].motion, records[5].motion)


def test_changed_records_or_damaged_files_are_unpacked_again(own_data, tmp_path, reads):
    before = unpack(own_data, tmp_path / "flat")
    first = before[0].audio.copy()
    (file,) = find_dataset(own_data, "synthetic_talk").glob("*-train.array_record-*")
    file.touch()
    unpack(own_data, tmp_path / "flat")
    assert len(reads) == 2
    np.testing.assert_array_equal(before[0].audio, first)  # open mappings of the old files stay valid
    (directory,) = (path for path in (tmp_path / "flat").iterdir() if path.is_dir())
    (directory / "motion").write_bytes((directory / "motion").read_bytes()[:-1])
    unpack(own_data, tmp_path / "flat")
    (directory / unpacked.INDEX).write_text("{")
    clips = unpack(own_data, tmp_path / "flat")
    assert len(reads) == 4
    np.testing.assert_array_equal(clips[0].audio, first)


def test_parts_of_a_split_are_unpacked_separately(data_dir, tmp_path):
    one, other = unpack(data_dir, tmp_path, "train[:2]"), unpack(data_dir, tmp_path, "train[2:4]")
    names = [record.clip_name for record in open_split(data_dir, "synthetic_talk", "train[:4]")]
    assert [clip.clip_name for clip in [*one, *other]] == names


def test_a_failed_unpacking_leaves_no_files(data_dir, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unpacked.json, "dumps", full)
        with pytest.raises(
            UserError, match=r"data.unpack_dir=.*: cannot write there \(No space left on device\)"
        ):
            unpack(data_dir, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert len(unpack(data_dir, tmp_path)) == 6


def test_remote_and_unwritable_directories_and_unknown_splits_are_rejected(data_dir, tmp_path):
    with pytest.raises(ConfigError, match=r"data.unpack_dir=gs://bucket: expected a local directory"):
        unpack(data_dir, "gs://bucket")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.unpack_dir=.*file: cannot write there \(File exists\)"):
        unpack(data_dir, tmp_path / "file")
    with pytest.raises(UserError, match="no split 'dev'"):
        unpack(data_dir, tmp_path, "dev")


def _unpack_and_tell(data_dir, unpack_dir, queue):
    clips = unpack(data_dir, unpack_dir)
    (directory,) = (path for path in unpack_dir.iterdir() if path.is_dir())
    queue.put(
        (clips[5].clip_name, int(clips[5].audio.astype(np.int64).sum()), (directory / "audio").stat().st_ino)
    )


def test_only_one_process_of_a_host_unpacks(data_dir, tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_unpack_and_tell, args=(data_dir, tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1]
    index = json.loads(next(tmp_path.glob("*/index.json")).read_text())
    assert index["columns"]["clip_name"][5] == found[0][0]
