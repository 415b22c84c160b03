"""Lengths and values of linear resampling, against the published code and NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.resample import MAX_OUTPUT_LENGTH, resample_linear, resampled_length

resample = jax.jit(resample_linear, static_argnums=3)


def test_published_rounding_equals_the_published_lengths(goldens):
    published = goldens("wav2vec2")
    counts = resampled_length(np.arange(1, 1501), from_hz=50, to_hz=25)
    np.testing.assert_array_equal(counts, published["n25_for_n50_1_to_1500"])
    _, at_50, at_25 = published["length_table_samples_n50_n25"]
    np.testing.assert_array_equal(resampled_length(at_50, from_hz=50, to_hz=25), at_25)


def test_exact_rounding_differs_from_published_rounding_for_some_lengths():
    counts = np.arange(6001)
    exact = resampled_length(counts, from_hz=50, to_hz=25, rounding="exact")
    np.testing.assert_array_equal(exact, (counts + 1) // 2)
    published = resampled_length(counts, from_hz=50, to_hz=25)
    assert np.sum(published != exact) == 142  # all for even counts, by one frame
    assert resampled_length(14, from_hz=50, to_hz=25) == 8
    assert resampled_length(14, from_hz=50, to_hz=25, rounding="exact") == 7


def test_exact_rounding_for_another_rate():
    assert resampled_length(50, from_hz=50.0, to_hz=30.0, rounding="exact") == 30
    assert resampled_length(51, from_hz=50.0, to_hz=30.0, rounding="exact") == 31


def test_unknown_rounding_lists_the_choices():
    with pytest.raises(ConfigError, match=r"rounding='floor' is not one of \('published', 'exact'\)"):
        resampled_length(3, from_hz=50, to_hz=25, rounding="floor")


def test_interpolation_equals_the_published_values(goldens):
    published = goldens("wav2vec2")
    x = jnp.asarray(published["interp_x"])
    published.check("interp_y", resample(x, jnp.array([63]), jnp.array([32]), 32))
    published.check("interp_y14", resample(x, jnp.array([14]), jnp.array([8]), 8))


@pytest.mark.parametrize("num_frames", [8, 32, 40])
def test_every_clip_is_resampled_over_its_length_as_numpy_does(num_frames):
    lengths, new_lengths = np.array([63, 14, 1]), np.array([32, 8, 1])
    values = np.random.default_rng(0).standard_normal((3, 63, 5)).astype(np.float32)
    out = resample(values, lengths, new_lengths, num_frames)
    assert out.shape == (3, num_frames, 5)
    for row in range(3):
        positions = np.linspace(0, lengths[row] - 1, new_lengths[row])
        expected = np.zeros((max(num_frames, 32), 5))
        for channel in range(5):
            expected[: len(positions), channel] = np.interp(positions, np.arange(63), values[row, :, channel])
        np.testing.assert_allclose(out[row], expected[:num_frames], atol=1e-5)


def test_values_in_the_padding_are_ignored():
    values = np.ones((1, 9, 2), np.float32)
    values[:, 5:] = np.nan
    out = resample(jnp.asarray(values), jnp.array([5]), jnp.array([3]), 4)
    np.testing.assert_array_equal(out[0], [[1, 1], [1, 1], [1, 1], [0, 0]])


def test_clips_of_half_an_hour_do_not_overflow():
    length, new_length = 2 * MAX_OUTPUT_LENGTH, MAX_OUTPUT_LENGTH
    ramp = jnp.arange(length, dtype=jnp.float32)[None, :, None]
    out = resample(ramp, jnp.array([length]), jnp.array([new_length]), new_length)
    np.testing.assert_allclose(out[0, :, 0], np.linspace(0, length - 1, new_length), rtol=1e-6)


def test_clips_beyond_the_limit_are_rejected():
    with pytest.raises(ValueError, match="cannot resample to num_frames=46341"):
        resample_linear(jnp.zeros((1, 2, 1)), jnp.array([2]), jnp.array([2]), MAX_OUTPUT_LENGTH + 1)
