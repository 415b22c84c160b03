"""Fixture with a tiny corpus for the tests of this folder."""

import pytest

from data_pipeline.prepare import prepare

NUM_CLIPS = 64


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Data directory with a `synthetic_talk` corpus of 48 train, 8 validation and 8 test clips, built by one worker."""
    root = tmp_path_factory.mktemp("data")
    prepare("synthetic_talk", str(root), num_clips=NUM_CLIPS, num_workers=1, num_shards=1)
    return root
