"""Tests of the batch loaders: windows, whole clips, order, sharing among processes, resuming."""

import json

import numpy as np
import pytest

from data_pipeline import loader
from data_pipeline.records import Record, Records, open_split
from deeptalk_jax.errors import UserError

_LABELS = {"emotion": 3, "intensity": 1, "speaker": 9, "identity": -1}


def _ramp_clip(number, num_frames):
    """Returns a clip in which every audio sample and motion value of a frame is `100 * number + frame`."""
    frame = np.arange(num_frames)
    code = 100 * number + frame
    motion = np.repeat(code[:, None], 53, axis=1).astype(np.float32)
    return Record(
        np.repeat(code, 640).astype(np.int16), motion, _LABELS | {"speaker": number}, f"clip{number}", ""
    )


@pytest.fixture
def ramps(monkeypatch):
    """Replaces the dataset by twelve clips of 20 to 75 frames."""
    clips = [_ramp_clip(number, 20 + 5 * number) for number in range(12)]
    monkeypatch.setattr(loader, "open_split", lambda *args, **kwargs: clips)
    return clips


def _loader(**arguments):
    defaults = {"batch_size": 4, "seed": 0, "window_frames": 32, "num_threads": 0}
    return loader.train_loader("nowhere", "ramps", **(defaults | arguments))


def test_audio_and_motion_stay_aligned(ramps):
    batches = [next(iterator) for iterator in [_loader()] for _ in range(30)]
    for batch in batches:
        audio_code = batch["audio"].reshape(4, 32, 640)
        np.testing.assert_array_equal(audio_code, np.broadcast_to(batch["motion"][:, :, :1], (4, 32, 640)))
        for row in range(4):
            clip = ramps[batch["clip"][row]]
            assert clip.labels["speaker"] == batch["speaker"][row]
            length = batch["num_frames"][row]
            assert length == min(32, len(clip.motion))
            assert batch["num_samples"][row] == 640 * length
            np.testing.assert_array_equal(np.diff(batch["motion"][row, :length, 0]), 1)
            assert not batch["motion"][row, length:].any() and not batch["audio"][row, 640 * length :].any()
    starts = {float(m[0, 0]) for batch in batches for m in batch["motion"]}
    assert len(starts) > 60  # windows start at many different frames


def test_fixed_windows_are_drawn_with_their_precomputed_features(ramps):
    arguments = {"windows_per_clip": 2, "window_frames": 16, "seed": 3}
    rows = range(2 * len(ramps))
    batches = loader.window_batches("nowhere", "ramps", "train", batch_size=5, rows=rows, **arguments)
    motion = np.concatenate([batch["motion"] for batch in batches])
    assert len(motion) == 25 and not motion[24:].any()  # the last row is padding
    first = motion[:24, 0, 0]
    assert [code // 100 for code in first] == [row // 2 for row in rows]
    features = [{"seen": np.float32([row, code])} for row, code in enumerate(first)]
    iterator = _loader(window_features=features, **arguments)
    chosen = [next(iterator) for _ in range(30)]
    for batch in chosen:
        np.testing.assert_array_equal(batch["seen"][:, 1], batch["motion"][:, 0, 0])
        np.testing.assert_array_equal(batch["seen"][:, 0] // 2, batch["clip"])
    assert {row for batch in chosen for row in batch["seen"][:, 0]} == set(rows)


def test_batch_keys_types_and_shapes(ramps):
    batch = next(_loader())
    assert {name: (value.dtype.name, value.shape) for name, value in batch.items()} == {
        "audio": ("int16", (4, 20480)),
        "motion": ("float32", (4, 32, 53)),
        "viseme": ("int32", (4, 32)),
        **{
            name: ("int32", (4,))
            for name in ("num_frames", "num_samples", "clip", "emotion", "intensity", "speaker", "identity")
        },
    }


def test_clip_loader_scales_int16_samples_to_floats_exactly(monkeypatch):
    values = np.array([-32768, -1, 0, 1, 32767], np.int16)
    record = Record(np.resize(values, 640), np.zeros((1, 53), np.float32), _LABELS, "", "")
    monkeypatch.setattr(loader, "open_split", lambda *args, **kwargs: [record])
    (batch,) = loader.clip_loader("nowhere", "one", "test", max_frames=1, batch_size=1)
    assert batch["audio"].dtype == np.float32
    assert batch["audio"].min() == -1 and batch["audio"].max() < 1
    np.testing.assert_array_equal((batch["audio"] * 32768).astype(np.int16)[0], record.audio)


def test_a_clip_may_end_within_its_last_frame():
    record = Record(np.ones(1000, np.int16), np.ones((2, 53), np.float32), _LABELS, "", "")
    batch = loader.assemble([loader.Window(7, record, 1)], 3)
    assert (batch["clip"], batch["num_frames"], batch["num_samples"]) == (7, 1, 360)
    assert batch["audio"].shape == (1, 1920) and np.count_nonzero(batch["audio"]) == 360


def test_each_epoch_has_every_clip_once_in_a_new_order(ramps):
    iterator = _loader()
    epochs = [np.concatenate([next(iterator)["speaker"] for _ in range(3)]) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(12))
    assert not np.array_equal(epochs[0], epochs[1])


def test_equal_seeds_give_equal_batches(ramps):
    one, same, other = (next(_loader(seed=seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["audio"], same["audio"])
    assert not np.array_equal(one["audio"], other["audio"])


def test_batches_of_two_processes_form_the_global_batch(ramps):
    whole = _loader()
    parts = [_loader(num_processes=2, process_index=index) for index in range(2)]
    for _ in range(6):
        batch, (first, second) = next(whole), [next(part) for part in parts]
        assert len(first["speaker"]) == 2
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([first[name], second[name]]))


def test_a_run_resumes_with_another_number_of_processes(ramps):
    whole = _loader()
    for _ in range(5):
        next(whole)
    state = json.loads(json.dumps(whole.get_state()))
    parts = [_loader(num_processes=4, process_index=index) for index in range(4)]
    for part in parts:
        part.set_state(state)
    np.testing.assert_array_equal(
        next(whole)["audio"], np.concatenate([next(part)["audio"] for part in parts])
    )


@pytest.mark.parametrize("num_threads", [0, 2])
def test_resuming_is_exact(ramps, num_threads):
    iterator = _loader(num_threads=num_threads)
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    json.dumps(state)
    expected = [next(iterator) for _ in range(4)]
    fresh = _loader(num_threads=num_threads)
    fresh.set_state(state)
    for batch in expected:
        np.testing.assert_array_equal(next(fresh)["audio"], batch["audio"])


def test_threads_do_not_change_the_batches(data_dir):
    one, other = (
        loader.train_loader(data_dir, "synthetic_talk", batch_size=8, seed=0, window_frames=32, num_threads=n)
        for n in (0, 4)
    )
    for _ in range(8):
        np.testing.assert_array_equal(next(one)["audio"], next(other)["audio"])


def test_clip_loader_gives_whole_clips_in_order(data_dir):
    records = open_split(data_dir, "synthetic_talk", "validation")
    batches = list(loader.clip_loader(data_dir, "synthetic_talk", "validation", max_frames=60, batch_size=3))
    assert [batch["audio"].shape for batch in batches] == [(3, 38400)] * 3
    names = [name for batch in batches for name in batch["clip_name"]]
    assert names == [record.clip_name for record in records] + [""]
    valid = np.concatenate([batch["valid"] for batch in batches])
    assert valid.tolist() == [True] * 8 + [False]
    lengths = np.concatenate([batch["num_frames"] for batch in batches])
    assert lengths.tolist() == [min(60, len(record.motion)) for record in records] + [0]
    assert batches[2]["emotion"][2] == -1
    length = lengths[4]
    np.testing.assert_array_equal(batches[1]["motion"][1, :length], records[4].motion[:length])
    assert not batches[1]["motion"][1, length:].any()
    limited = list(
        loader.clip_loader(data_dir, "synthetic_talk", "validation", max_frames=60, batch_size=3, limit=4)
    )
    assert [batch["valid"].sum() for batch in limited] == [3, 1]


def test_cache_of_records_is_bounded():
    clips = [_ramp_clip(number, 20).audio for number in range(3)]
    reads = []

    class Source(list):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    def parse(serialised):
        return Record(serialised, np.zeros((0, 53), np.float32), {}, "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_pipeline.records.parse_record", parse)
        records = Records(Source(clips), cache_bytes=2 * clips[0].nbytes)
        for _ in range(2):
            assert [record.audio[0] for record in records] == [0, 100, 200]
    assert reads == [0, 1, 2, 2]
    with pytest.raises(IndexError, match="clip 3: expected 0 to 2"):
        records[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"batch_size": 3, "num_processes": 2},
            "batch_size=3: expected a positive multiple of num_processes=2",
        ),
        ({"batch_size": 0}, "batch_size=0: expected a positive multiple"),
        ({"process_index": 1}, "process_index=1: expected 0 to 0 with num_processes=1"),
        (
            {"window_frames": 76},
            "window_frames=76 is longer than every clip of 'train': expected at most 75",
        ),
        ({"window_frames": 0}, "window_frames=0: expected at least 1"),
    ],
)
def test_train_loader_rejects_invalid_arguments(ramps, arguments, message):
    with pytest.raises(UserError, match=message):
        _loader(**arguments)


@pytest.mark.parametrize(
    ("dataset", "split", "message"),
    [
        (
            "synthetic_talk",
            "dev",
            r"no split 'dev' in .*; found: test \(8 clips\), train \(48 clips\), validation",
        ),
        ("synthetic_talk", "train[a:b]", r"cannot read split 'train\[a:b\]' of "),
        ("synthetic_talk", "train[:0]", r"split 'train\[:0\]' of .* is empty; found: test"),
        ("mead", "train", "no complete dataset 'mead' in .*; found: synthetic_talk/clips64_seed0"),
    ],
)
def test_loaders_name_the_existing_datasets_and_splits(data_dir, dataset, split, message):
    with pytest.raises(UserError, match=message):
        loader.train_loader(data_dir, dataset, split, batch_size=2, seed=0, window_frames=32)
    with pytest.raises(UserError, match=message):
        loader.clip_loader(data_dir, dataset, split, max_frames=50, batch_size=2)


def test_a_missing_data_directory_is_reported(tmp_path):
    with pytest.raises(
        UserError, match=r"no data directory .*; build one with python -m data_pipeline.build"
    ):
        open_split(tmp_path / "none", "synthetic_talk", "train")
