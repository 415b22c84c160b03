"""Damaged and foreign datasets are refused in one line that names the file."""

import json
import shutil

import pytest

from data_pipeline.records import open_split
from deeptalk_jax.errors import UserError


def info_as_tfrecord(folder, shard):
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))


def foreign_features(folder, shard):
    features = json.loads((folder / "features.json").read_text())
    del features["featuresDict"]["features"]["motion"]
    (folder / "features.json").write_text(json.dumps(features))


def other_length(folder, shard):
    info = json.loads((folder / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["47"]
    (folder / "dataset_info.json").write_text(json.dumps(info))


SHARD = "synthetic_talk-train.array_record-00000-of-00001"
DAMAGES = {
    "tfrecord": (
        info_as_tfrecord,
        "1.4.0: its records are in the format tfrecord; build it with file_format=array",
    ),
    "foreign": (
        foreign_features,
        "features.json: the records lack motion; expected the features of data_pipeline",
    ),
    "empty": (lambda folder, shard: shard.write_bytes(b""), f"{SHARD}: cut short or damaged; copy or build"),
    "cut": (
        lambda folder, shard: shard.write_bytes(shard.read_bytes()[:100_000]),
        f"{SHARD}: cut short or damaged; copy or build",
    ),
    "lost": (lambda folder, shard: shard.unlink(), f"{SHARD}: missing; copy or build"),
    "length": (other_length, f"{SHARD}: 48 clips, expected 47"),
    "info": (
        lambda folder, shard: (folder / "dataset_info.json").write_text("{"),
        "dataset_info.json: missing or damaged",
    ),
    "info of other content": (
        lambda folder, shard: (folder / "dataset_info.json").write_text('{"splits": 3}'),
        "1.4.0: dataset_info.json or features.json is damaged",
    ),
    "features": (
        lambda folder, shard: (folder / "features.json").unlink(),
        "features.json: missing or damaged",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_foreign_dataset_ends_in_one_line_with_its_file(data_dir, tmp_path, damage):
    shutil.copytree(data_dir, tmp_path / "data")
    (folder,) = (path.parent for path in (tmp_path / "data").rglob("dataset_info.json"))
    harm, message = DAMAGES[damage]
    harm(folder, folder / SHARD)
    with pytest.raises(UserError) as error:
        open_split(tmp_path / "data", "synthetic_talk", "train")
    assert str(error.value).startswith(str(folder)) and message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_object_store_is_refused_under_its_own_name():
    with pytest.raises(UserError, match=r"^gs://bucket/data: datasets are read from a local disk"):
        open_split("gs://bucket/data", "synthetic_talk", "train")
