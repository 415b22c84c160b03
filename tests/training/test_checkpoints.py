"""Checkpoints: restoring, damaged files, full disks."""

import errno
import gc
import os
import resource
import shutil

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.checkpoints import Checkpoints
from deeptalk_jax.training.state import create_state


def counter(value=0):
    """Returns a resumable iterator that yields `value` next."""
    iterator = iter(grain.MapDataset.range(100).to_iter_dataset())
    for _ in range(value):
        next(iterator)
    return iterator


def state_at(number):
    variables = {"params": {"w": jnp.full((3, 2), float(number))}, "codebook": {"n": jnp.array(number)}}
    return create_state(variables, optax.adam(0.1), 2)


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for number in (1, 2, 3):
        checkpoints.save(number, state_at(number), counter(10 * number))
    checkpoints.close()
    return tmp_path


def restore(directory):
    checkpoints, iterator = Checkpoints(directory), counter()
    state = checkpoints.restore(state_at(0), iterator)
    latest = checkpoints.latest_step
    checkpoints.close()
    return state, int(next(iterator)), latest


def damage(directory):
    files = sorted((file for file in directory.rglob("*") if file.is_file()), key=lambda f: f.stat().st_size)
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_the_newest_checkpoint_is_restored_and_two_are_kept(saved):
    state, position, latest = restore(saved)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(3))
    assert (position, latest) == (30, 3)
    assert sorted(path.name for path in saved.iterdir() if path.name.isdigit()) == ["2", "3"]


def test_a_damaged_newest_checkpoint_falls_back_to_the_previous_one(saved):
    damage(saved / "3" / "state")
    state, position, latest = restore(saved)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(2))
    assert (position, latest) == (
        20,
        2,
    )  # the damaged one is deleted, so that training can save this step again


# When one read fails, Orbax does not wait for its other reads.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_truncated_file_is_detected(saved, caplog):
    """Either the file is not read, or the previous checkpoint is restored; wrong numbers never are."""
    files = [path.relative_to(saved) for path in (saved / "3").rglob("*") if path.is_file()]
    assert len(files) > 5
    steps = {}
    for file in files:
        copy = saved.parent / "copy"
        shutil.copytree(saved, copy)
        os.truncate(copy / file, (copy / file).stat().st_size // 2)
        caplog.clear()
        state, position, latest = restore(copy)
        steps[file.name] = latest
        jax.tree.map(np.testing.assert_array_equal, state, state_at(latest))
        assert position == 10 * latest
        assert (latest == 2) == (f"{copy}/3 cannot be read" in caplog.text), file
        shutil.rmtree(copy)
    gc.collect()
    assert list(steps.values()).count(2) >= 4, steps


def test_a_full_disk_is_reported_whenever_it_shows(tmp_path, monkeypatch):
    """It can show when a save starts, in the background, or at the end."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def refuse(*args, **kwargs):
        raise full

    message = f"{tmp_path}: a checkpoint cannot be written .*No space left on device"
    checkpoints = Checkpoints(tmp_path)
    for method, call in (
        ("save", lambda: checkpoints.save(1, state_at(1), counter(10))),
        ("check_for_errors", checkpoints.raise_if_failed),
        ("wait_until_finished", checkpoints.close),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoints._manager, method, refuse)
            with pytest.raises(UserError, match=message):
                call()
    checkpoints.close()


# Orbax closes its event loop while writes are still failing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_write_that_fails_in_the_background_is_not_logged_by_orbax(tmp_path, caplog):
    """The disk refuses files above 64 kB; Orbax logs the tracebacks of four threads, about 300 lines."""
    numbers = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    state = state_at(1)
    state = state.replace(params={"w": jnp.asarray(numbers)})
    checkpoints, limits = Checkpoints(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
    try:
        with pytest.raises(UserError, match="a checkpoint cannot be written") as error:
            checkpoints.save(1, state, counter(10))
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert not [record for record in caplog.records if record.exc_info]
    assert not logging.get_absl_logger().filters


def test_an_unfinished_save_is_ignored(saved):
    (saved / "4.orbax-checkpoint-tmp").mkdir()
    assert restore(saved)[2] == 3


def test_without_checkpoints_the_state_is_unchanged(tmp_path):
    state, position, latest = restore(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(0))
    assert (position, latest) == (0, None)


def test_only_damaged_checkpoints_are_an_error(saved):
    for number in "23":
        damage(saved / number / "state")
    with pytest.raises(UserError, match=r"none of the checkpoints \[2, 3\] can be read"):
        restore(saved)


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/checkpoints: the checkpoint directory cannot be created"):
        Checkpoints(tmp_path / "file" / "checkpoints")
