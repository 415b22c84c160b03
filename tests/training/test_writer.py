"""The metric writer on full disks, after killed runs and in object stores; other files of a run in object stores."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from etils import epath
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from ml_collections import ConfigDict
from tensorboardX.proto.event_pb2 import Event

from deeptalk_jax.assembly.model_dir import Part, load_part, save_model
from deeptalk_jax.errors import UserError
from deeptalk_jax.training.workdir import claim_workdir
from deeptalk_jax.training.writer import MetricWriter


def rows(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir):
    """Reads all event files; a record is length (8 bytes), checksum (4), data, checksum (4)."""
    found = []
    for path in sorted(workdir.glob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_a_row_and_an_event_per_step_are_written(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(3, {"loss": 0.5, "mfu": None}, prefix="train")
    assert rows(tmp_path) == [{"step": 3, "train/loss": 0.5, "train/mfu": None}]
    version, restart, event = events(tmp_path)
    assert version.file_version
    assert restart.step == 1
    assert event.step == 3
    assert [(value.tag, value.simple_value) for value in event.summary.value] == [("train/loss", 0.5)]


def test_rows_that_a_killed_run_wrote_after_its_checkpoint_are_removed(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, {"loss": step}, prefix="train")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/lo')
    with MetricWriter(tmp_path, first_step=2) as writer:
        writer.write(3, {"loss": 30}, prefix="train")
    assert [(row["step"], row["train/loss"]) for row in rows(tmp_path)] == [(1, 1), (2, 2), (3, 30)]


def test_a_full_disk_is_reported(tmp_path, monkeypatch):
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda _, mode: real(Path("/dev/full"), mode))
    with pytest.raises(UserError, match=f"{tmp_path}: metrics cannot be written .*No space left"):
        MetricWriter(tmp_path).write(1, {"loss": 1.0}, prefix="train")


def test_a_read_only_directory_is_reported(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"metrics cannot be written .*Read-only file system"):
        MetricWriter(tmp_path)


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A local directory that fsspec serves as `gs://bucket`; etils.epath uses fsspec if there is no TensorFlow."""
    (tmp_path / "bucket").mkdir()

    class Store(DirFileSystem):
        protocol = "gcs"

        def __init__(self, **_):
            super().__init__(path=str(tmp_path), fs=LocalFileSystem())

        def _join(self, path):
            if isinstance(path, str):
                path = path.removeprefix("gs://")
            return super()._join(path)

        def open(self, path, mode="rb", **options):
            if "a" in mode:
                raise ValueError("object stores cannot append")
            return super().open(path, mode, **options)

    monkeypatch.setattr(epath.backend.fsspec_backend, "_get_filesystem", lambda name: Store())
    return epath.Path("gs://bucket"), tmp_path / "bucket"


def test_metrics_in_an_object_store_are_appended_across_runs(bucket):
    remote, local = bucket
    for first in (0, 1):
        with MetricWriter(remote, first_step=first) as writer:
            writer.write(first + 1, {"loss": 1.0}, prefix="train")
    assert [row["step"] for row in rows(local)] == [1, 2]
    assert [event.step for event in events(local) if event.summary.value] == [1, 2]


def test_config_and_model_in_an_object_store(bucket):
    """Checkpoints are not covered: Orbax opens `gs://` with its own client, for which there is no stand-in here."""
    remote, local = bucket
    config = ConfigDict({"stage": "fer", "seed": 3})
    claim_workdir(remote / "fer", config)
    with config.unlocked():
        config.data = {"cache_bytes": 0}  # a key that may change
    claim_workdir(remote / "fer", config)
    del config.data
    assert json.loads((local / "fer" / "config.json").read_text()) == config.to_dict()
    with pytest.raises(UserError, match=r"begun with another config \(differs in: seed\)"):
        claim_workdir(remote / "fer", ConfigDict({"stage": "fer", "seed": 4}))
    weights = {"params": {"layer": {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}}}
    model = remote / "fer" / "model"
    save_model(model, {"fer": Part(config, weights, {"mean": np.ones(2)})}, head="procedural")
    save_model(model, {"fer": Part(config, weights, {"mean": np.zeros(2)})}, head="procedural")
    part = load_part(model, "fer")
    np.testing.assert_array_equal(part.variables["params"]["layer"]["w"], weights["params"]["layer"]["w"])
    np.testing.assert_array_equal(part.statistics["mean"], [0, 0])
    names = sorted(path.name for path in (local / "fer" / "model").iterdir())
    assert names == ["fer.safetensors", "fer.statistics.safetensors", "model.json"]  # no temporary files
