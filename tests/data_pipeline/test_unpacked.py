"""Clips laid out flat: the same clips, unpacked once, and again when the records change."""

import json
import multiprocessing
import shutil

import numpy as np
import pytest

from data_pipeline import loader, unpacked
from data_pipeline.records import open_split
from data_pipeline.registry import find_dataset
from data_pipeline.unpacked import unpacked_split
from deeptalk_jax.errors import UserError

SPLIT = "train[:6]"


def unpack(data_dir, unpack_dir, split=SPLIT):
    return unpacked_split(data_dir, "synthetic_talk", split, unpack_dir)


@pytest.fixture
def own_data(data_dir, tmp_path):
    """A dataset that a test may change."""
    return shutil.copytree(data_dir, tmp_path / "data")


@pytest.fixture
def reads(monkeypatch):
    """Counts how often records are opened to be unpacked."""
    opened = []

    def counted(*args, **kwargs):
        opened.append(args)
        return open_split(*args, **kwargs)

    monkeypatch.setattr(unpacked, "open_split", counted)
    return opened


def test_clips_are_those_of_the_records(data_dir, tmp_path, reads):
    records = open_split(data_dir, "synthetic_talk", SPLIT)
    for _ in range(2):
        clips = unpack(data_dir, tmp_path)
        assert len(clips) == len(records) == 6
        for clip, record in zip(clips, records, strict=True):
            for name in ("audio", "motion", "visemes"):
                np.testing.assert_array_equal(getattr(clip, name), getattr(record, name))
                assert not getattr(clip, name).flags.owndata  # a view of the file
            assert (clip.labels, clip.clip_name, clip.text) == (record.labels, record.clip_name, record.text)
    assert len(reads) == 1
    with pytest.raises(IndexError, match="clip 6 of 6"):
        clips[6]


def test_batches_are_those_of_the_records(data_dir, tmp_path):
    arguments = {"batch_size": 8, "seed": 1, "window_frames": 32, "num_threads": 2}
    whole = loader.train_loader(data_dir, "synthetic_talk", **arguments)
    flat = loader.train_loader(data_dir, "synthetic_talk", unpack_dir=tmp_path, **arguments)
    for _ in range(10):
        expected, found = next(whole), next(flat)
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])


def test_clips_without_visemes(data_dir, tmp_path, monkeypatch):
    records = [
        record._replace(visemes=record.visemes[:0])
        for record in open_split(data_dir, "synthetic_talk", SPLIT)
    ]
    monkeypatch.setattr(unpacked, "open_split", lambda *args, **kwargs: records)
    clips = unpack(data_dir, tmp_path)
    assert [clip.visemes.shape for clip in clips] == [(0,)] * 6
    np.testing.assert_array_equal(clips[5].motion, records[5].motion)


def test_other_records_or_damaged_files_are_unpacked_anew(own_data, tmp_path, reads):
    before = unpack(own_data, tmp_path / "flat")
    first = before[0].audio.copy()
    (file,) = find_dataset(own_data, "synthetic_talk").glob("*-train.array_record-*")
    file.touch()
    unpack(own_data, tmp_path / "flat")
    assert len(reads) == 2
    np.testing.assert_array_equal(before[0].audio, first)  # who reads the old files goes on reading them
    (directory,) = (path for path in (tmp_path / "flat").iterdir() if path.is_dir())
    (directory / "motion").write_bytes((directory / "motion").read_bytes()[:-1])
    unpack(own_data, tmp_path / "flat")
    (directory / unpacked.INDEX).write_text("{")
    clips = unpack(own_data, tmp_path / "flat")
    assert len(reads) == 4
    np.testing.assert_array_equal(clips[0].audio, first)


def test_parts_of_a_split_do_not_mix(data_dir, tmp_path):
    one, other = unpack(data_dir, tmp_path, "train[:2]"), unpack(data_dir, tmp_path, "train[2:4]")
    names = [record.clip_name for record in open_split(data_dir, "synthetic_talk", "train[:4]")]
    assert [clip.clip_name for clip in [*one, *other]] == names


def test_a_failure_leaves_nothing_behind(data_dir, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unpacked.json, "dumps", full)
        with pytest.raises(
            UserError, match=r"data.unpack_dir=.*: cannot unpack there \(No space left on device\)"
        ):
            unpack(data_dir, tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert len(unpack(data_dir, tmp_path)) == 6


def test_places_that_cannot_be(data_dir, tmp_path):
    with pytest.raises(UserError, match=r"data.unpack_dir=gs://bucket: files there cannot be mapped"):
        unpack(data_dir, "gs://bucket")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.unpack_dir=.*file: cannot unpack there \(File exists\)"):
        unpack(data_dir, tmp_path / "file")
    with pytest.raises(UserError, match="no split 'dev'"):
        unpack(data_dir, tmp_path, "dev")


def _unpack_and_tell(data_dir, unpack_dir, queue):
    clips = unpack(data_dir, unpack_dir)
    (directory,) = (path for path in unpack_dir.iterdir() if path.is_dir())
    queue.put(
        (clips[5].clip_name, int(clips[5].audio.astype(np.int64).sum()), (directory / "audio").stat().st_ino)
    )


def test_processes_of_a_host_unpack_once(data_dir, tmp_path):
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
