import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.codebook_start import kmeans_plus_plus, random_rows

KEYS = jax.random.split(jax.random.key(0), 4000)


def drawn(start, rows, num_codes):
    """`[4000, k, d]`: codes for many keys."""
    return np.asarray(jax.jit(jax.vmap(lambda key: start(jnp.asarray(rows), num_codes, key)))(KEYS))


def test_second_code_follows_squared_distances():
    codes = drawn(kmeans_plus_plus, [[0.0], [1.0], [3.0]], 2)[..., 0]
    first, second = codes.T
    np.testing.assert_allclose([np.mean(first == row) for row in (0, 1, 3)], 1 / 3, atol=0.03)
    # From 0 the others lie at squared distances 1 and 9, from 1 at 1 and 4, from 3 at 9 and 4.
    for row, far, share in ((0, 3, 9 / 10), (1, 3, 4 / 5), (3, 0, 9 / 13)):
        assert np.mean(second[first == row] == far) == pytest.approx(share, abs=0.04)


def test_third_code_follows_the_nearest_of_two():
    codes = drawn(kmeans_plus_plus, [[0.0], [1.0], [3.0], [7.0]], 3)[..., 0]
    begun = (codes[:, 0] == 0) & (codes[:, 1] == 7)
    # 1 lies nearest to 0 (1), 3 to 0 as well (9 against 16).
    assert begun.sum() > 500
    assert np.mean(codes[begun, 2] == 3) == pytest.approx(9 / 10, abs=0.04)


def test_far_groups_and_repeated_rows():
    # 30 copies of one row, one of another: without weights the second would hardly ever be drawn.
    rows = np.zeros((31, 2), np.float32)
    rows[17] = 5.0
    assert (np.sort(drawn(kmeans_plus_plus, rows, 2)[..., 0], axis=1) == [0, 5]).all()
    # As many codes as different rows: each gets one; more codes than that are rows too.
    rows = np.float32([[0, 1], [2, 0], [2, 0], [0, 1], [9, 9]])
    assert (np.sort(drawn(kmeans_plus_plus, rows, 3)[..., 0], axis=1) == [0, 2, 9]).all()
    assert set(np.unique(drawn(kmeans_plus_plus, rows, 5)[..., 1])) == {0, 1, 9}


def test_random_rows_are_even():
    codes = drawn(random_rows, [[0.0], [1.0], [3.0]], 2)
    np.testing.assert_allclose([np.mean(codes == row) for row in (0, 1, 3)], 1 / 3, atol=0.02)
