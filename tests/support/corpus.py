"""The corpus that tests of data and of training share."""

from pathlib import Path

from data_pipeline.prepare import prepare

NUM_CLIPS = 64
SPLIT_SIZES = {"train": 48, "validation": 8, "test": 8}


def build_corpus(directory: Path) -> None:
    """Builds `synthetic_talk` with `NUM_CLIPS` clips, in one process and one file per split."""
    prepare("synthetic_talk", str(directory), num_clips=NUM_CLIPS, num_workers=1, num_shards=1)
