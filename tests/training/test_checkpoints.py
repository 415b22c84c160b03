import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeptalk_jax.errors import UserError
from deeptalk_jax.training.checkpoints import Checkpoints
from deeptalk_jax.training.state import create_state


def counter(value=0):
    """A resumable iterator that gives `value` next."""
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


def test_newest_is_restored_and_two_are_kept(saved):
    state, position, latest = restore(saved)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(3))
    assert (position, latest) == (30, 3)
    assert sorted(path.name for path in saved.iterdir() if path.name.isdigit()) == ["2", "3"]


def test_damaged_newest_falls_back_to_the_one_before(saved):
    damage(saved / "3" / "state")
    state, position, latest = restore(saved)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(2))
    assert (position, latest) == (20, 2)  # the damaged one is gone, so that training can save it anew


def test_unfinished_save_is_ignored(saved):
    (saved / "4.orbax-checkpoint-tmp").mkdir()
    assert restore(saved)[2] == 3


def test_nothing_saved_changes_nothing(tmp_path):
    state, position, latest = restore(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, state, state_at(0))
    assert (position, latest) == (0, None)


def test_all_damaged_is_an_error(saved):
    for number in "23":
        damage(saved / number / "state")
    with pytest.raises(UserError, match=r"none of the checkpoints \[2, 3\] can be read"):
        restore(saved)


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/checkpoints: cannot make the checkpoint directory"):
        Checkpoints(tmp_path / "file" / "checkpoints")
