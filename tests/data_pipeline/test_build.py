"""Tests of building the synthetic corpus, of its records, and of finding datasets on disk."""

import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_pipeline import registry
from data_pipeline.prepare import prepare
from data_pipeline.records import open_split
from data_pipeline.synthetic_talk import workers
from data_pipeline.synthetic_talk.acoustics import frame_level_db
from data_pipeline.synthetic_talk.clip import make_clip, plan_split
from deeptalk_jax.errors import UserError
from deeptalk_jax.types import EMOTIONS, VISEME_CLASSES
from tests.support.commands import run_command
from tests.support.corpus import NUM_CLIPS, SPLIT_SIZES


def test_records_do_not_depend_on_shards_or_workers(data_dir, tmp_path):
    prepare("synthetic_talk", str(tmp_path), num_clips=NUM_CLIPS, num_workers=2, num_shards=3)
    for split, size in SPLIT_SIZES.items():
        one, other = (open_split(root, "synthetic_talk", split) for root in (data_dir, tmp_path))
        assert len(one) == len(other) == size
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.audio, b.audio)
            np.testing.assert_array_equal(a.motion, b.motion)
            np.testing.assert_array_equal(a.visemes, b.visemes)
            assert a[2:-1] == b[2:-1]


def test_a_single_generated_clip_equals_the_record_in_the_corpus(data_dir):
    records = open_split(data_dir, "synthetic_talk", "train")
    plan = plan_split("train", 48, seed=0)[37]
    clip = make_clip(plan)
    np.testing.assert_array_equal(records[37].audio, clip.audio)
    np.testing.assert_array_equal(records[37].motion, clip.motion)
    np.testing.assert_array_equal(records[37].visemes, clip.visemes)
    assert (records[37].clip_name, records[37].text) == (plan.name, clip.text)


def test_seed_changes_the_clips():
    one, other = (make_clip(plan_split("train", 1, seed)[0]) for seed in (0, 1))
    assert one.text != other.text or len(one.audio) != len(other.audio)


def test_records_have_valid_arrays_labels_and_names(data_dir):
    names = set()
    for split, size in SPLIT_SIZES.items():
        records = open_split(data_dir, "synthetic_talk", split)
        emotions = [record.labels["emotion"] for record in records]
        assert np.bincount(emotions).tolist() == [size // 8] * 8
        for record in records:
            assert record.audio.dtype == np.int16 and record.motion.dtype == np.float32
            assert len(record.motion) == -(-len(record.audio) // 640)
            assert len(record.visemes) == len(record.motion)
            assert record.visemes[0] == record.visemes[-1] == VISEME_CLASSES.index("silence")
            assert len(np.unique(record.visemes)) > 4
            assert 1.0 < len(record.audio) / 16_000 < 8.0
            assert 500 < np.abs(record.audio.astype(int)).max() < 32_767
            speaker, emotion, intensity = (
                record.labels[name] for name in ("speaker", "emotion", "intensity")
            )
            expected = f"speaker{speaker:02d}_{EMOTIONS[emotion]}_{intensity + 1}_0001"
            assert record.clip_name == expected
            assert (record.labels["identity"] >= 0) == (split == "train")
            names.add(record.clip_name)
    assert len(names) == NUM_CLIPS


def test_open_split_reads_the_same_records_as_tfds(data_dir):
    builder = tfds.builder_from_directory(str(registry.find_dataset(data_dir, "synthetic_talk")))
    theirs = builder.as_data_source("validation")[5]
    ours = open_split(data_dir, "synthetic_talk", "validation")[5]
    np.testing.assert_array_equal(theirs["audio"], ours.audio)
    np.testing.assert_array_equal(theirs["motion"], ours.motion)
    assert {name: int(theirs[name]) for name in ours.labels} == ours.labels
    assert builder.info.features["emotion"].names == list(EMOTIONS)
    assert open_split(data_dir, "synthetic_talk", "validation[5:]")[0].clip_name == ours.clip_name


def test_jaw_opening_correlates_with_loudness(data_dir):
    correlations = [
        np.corrcoef(frame_level_db(record.audio), record.motion[:, 50])[0, 1]
        for record in open_split(data_dir, "synthetic_talk", "test")
    ]
    assert np.mean(correlations) > 0.5


def test_an_existing_dataset_is_not_built_again(data_dir, capsys, monkeypatch):
    monkeypatch.setattr(workers, "worker_pool", None)  # a build would call None and fail
    prepare("synthetic_talk", str(data_dir), num_clips=NUM_CLIPS)
    assert "already built" in capsys.readouterr().out


def test_an_interrupted_build_leaves_no_complete_dataset(tmp_path, monkeypatch):
    make_clips = workers.make_clips

    def interrupted(*args):
        for count, item in enumerate(make_clips(*args)):
            if count == 3:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(workers, "make_clips", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare("synthetic_talk", str(tmp_path), num_clips=8, num_workers=1)
    with pytest.raises(UserError, match=r"no complete dataset 'synthetic_talk' in .*; found: none"):
        registry.find_dataset(tmp_path, "synthetic_talk")
    monkeypatch.undo()
    directory = prepare("synthetic_talk", str(tmp_path), num_clips=8, num_workers=1)
    assert registry.find_dataset(tmp_path, "synthetic_talk") == directory
    prepare("synthetic_talk", str(tmp_path), num_clips=8, num_workers=1, overwrite=True)
    assert len(open_split(tmp_path, "synthetic_talk", "train")) == 6


def test_find_dataset_returns_the_newest_version(data_dir, tmp_path):
    complete = registry.find_dataset(data_dir, "synthetic_talk")
    for version in ("1.9.0", "1.10.0"):
        shutil.copytree(complete, tmp_path / "synthetic_talk" / "clips64_seed0" / version)
    assert registry.find_dataset(tmp_path, "synthetic_talk").name == "1.10.0"


def test_configurations_are_kept_side_by_side(data_dir, tmp_path):
    complete = registry.find_dataset(data_dir, "synthetic_talk")
    for config in ("clips64_seed0", "clips64_seed1"):
        shutil.copytree(complete, tmp_path / "synthetic_talk" / config / "1.0.0")
    killed = tmp_path / "synthetic_talk" / "clips64_seed2" / "incomplete.4XHVPA_1.0.0"
    shutil.copytree(complete, killed)  # a build that is killed by SIGKILL leaves such a directory
    with pytest.raises(
        UserError, match=r"has 2 configurations in .*: synthetic_talk/clips64_seed0, synthetic_talk/clips"
    ):
        open_split(tmp_path, "synthetic_talk", "train")
    assert len(open_split(tmp_path, "synthetic_talk/clips64_seed1", "train")) == 48
    with pytest.raises(UserError, match="no complete dataset 'synthetic_talk/clips64_seed2'"):
        open_split(tmp_path, "synthetic_talk/clips64_seed2", "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "meed"}, "unknown dataset 'meed'; expected one of: .*synthetic_talk"),
        ({"num_clips": 7}, "--num_clips=7: expected at least 8, so that every split has a clip"),
        ({"seed": -1}, "--seed=-1: expected at least 0"),
        ({"num_workers": 0}, "--num_workers=0: expected at least 1"),
        ({"num_shards": 9}, "--num_shards=9: expected 1 to 2, the number of clips of the smallest split"),
        ({"num_shards": 0}, "--num_shards=0: expected 1 to 2"),
        ({"data_dir": "/proc/nowhere"}, "cannot write to --data_dir=/proc/nowhere: No such file"),
    ],
)
def test_prepare_rejects_invalid_arguments(tmp_path, arguments, message):
    request = {"dataset": "synthetic_talk", "data_dir": str(tmp_path), "num_clips": 16} | arguments
    with pytest.raises(UserError, match=message):
        prepare(**request)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset=meed"], "error: unknown dataset 'meed'; expected one of: "),
        (["--num_clips=many"], "error: flag --num_clips=many: invalid literal"),
    ],
)
def test_command_reports_errors_in_one_line(commands, tmp_path, flags, message):
    done = commands.run("data_pipeline.build", f"--data_dir={tmp_path}", *flags)
    assert done.status == 2
    assert done.stderr.startswith(message) and done.stderr.count("\n") == 1


def test_command_builds_a_dataset(tmp_path):
    flags = ("--dataset=synthetic_talk", f"--data_dir={tmp_path}", "--num_clips=8")
    done = run_command("-m", "data_pipeline.build", *flags)
    assert done.status == 0, done.stderr
    assert "8 clips" in done.stdout and "x real time" in done.stdout
    assert "8/8" in done.stderr  # printed by the progress bar
    # TFDS reports a download that does not take place, and a config of its own that every builder has.
    assert "Unknown size" not in done.stdout + done.stderr
    assert "custom data configuration" not in done.stdout + done.stderr
    assert len(open_split(tmp_path, "synthetic_talk", "validation")) == 1


def test_building_and_loading_do_not_import_tensorflow(tmp_path):
    program = f"""
import sys
if __name__ == "__main__":
    from data_pipeline.prepare import prepare
    from data_pipeline.loader import train_loader
    prepare("synthetic_talk", {str(tmp_path)!r}, num_clips=8, num_workers=1)
    batch = next(train_loader({str(tmp_path)!r}, "synthetic_talk", batch_size=2, seed=0, window_frames=32))
    assert batch["audio"].shape == (2, 20480)
    assert not any(name.split(".")[0] == "tensorflow" for name in sys.modules)
    print("done")
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    done = run_command(script)
    assert done.stdout.endswith("done\n"), done.stderr
