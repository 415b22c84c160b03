"""Pooling of emotion Gaussians and draws from them, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.inference.emotion_gaussian import draw_emotion, pool_by_precision
from deeptalk_jax.types import Gaussian


def test_precision_pooling_by_hand():
    # Precisions 4, 1 and 1, 1; weights 3/4 and 1/4: the pooled precision is 3 + 1/4 and 3/4 + 1/4.
    first = Gaussian(np.float32([1.0, 0.0]), -np.log(np.float32([4.0, 1.0])))
    second = Gaussian(np.float32([0.0, 1.0]), np.zeros(2, np.float32))
    pooled = pool_by_precision([first, second], [48_000, 16_000])
    mean = np.array([3.0 / 3.25, 0.25 / 1.0])
    np.testing.assert_allclose(pooled.mean, mean / np.linalg.norm(mean), rtol=1e-6)
    np.testing.assert_allclose(np.exp(-pooled.log_variance), [3.25, 1.0], rtol=1e-6)


def test_a_single_window_is_returned_unchanged():
    gaussian = Gaussian(np.float32([0.6, -0.8]), np.float32([0.3, -2.0]))
    for array, expected in zip(pool_by_precision([gaussian], [7]), gaussian, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_pooling_equal_windows_gives_the_window():
    gaussian = Gaussian(np.float32([0.6, -0.8]), np.float32([0.3, -2.0]))
    for array, expected in zip(pool_by_precision([gaussian] * 3, [1, 2, 3]), gaussian, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-6)


def test_alpha_spreads_the_emotion_around_its_mean():
    mean = np.float32([[0.48, -0.6, 0.64]])
    gaussian = Gaussian(jnp.asarray(mean), jnp.log(jnp.float32([[0.04, 0.09, 0.01]])))
    draw = jax.jit(draw_emotion)
    spreads = []
    for alpha in (0.0, 0.5, 1.0, 2.0):
        draws = np.concatenate([draw(gaussian, alpha, jax.random.key(seed)) for seed in range(200)])
        np.testing.assert_allclose(np.linalg.norm(draws, axis=-1), 1.0, rtol=1e-6)
        spreads.append(float(np.mean(np.arccos(np.clip(draws @ mean[0], -1, 1)))))
        if alpha == 0:
            np.testing.assert_allclose(draws, np.repeat(mean, 200, axis=0), rtol=1e-6)
    assert spreads[0] < 1e-3 < spreads[1] < 0.7 * spreads[2] < 0.7 * spreads[3]
    noise = jax.random.normal(jax.random.key(3), (1, 3))
    wanted = mean + 1.0 * np.sqrt([[0.04, 0.09, 0.01]]) * noise
    np.testing.assert_allclose(
        draw(gaussian, 1.0, jax.random.key(3)), wanted / np.linalg.norm(wanted), rtol=1e-5
    )


def test_alpha_mode_log_variance_scales_the_log_variance():
    mean = np.float32([[0.48, -0.6, 0.64]])
    log_variance = np.log(np.float32([[0.04, 0.09, 0.01]]))
    gaussian, key = Gaussian(jnp.asarray(mean), jnp.asarray(log_variance)), jax.random.key(3)
    noise = np.asarray(jax.random.normal(key, (1, 3)))
    for alpha in (0.5, 1.0, 2.0):
        wanted = mean + np.exp(0.5 * alpha * log_variance) * noise
        drawn = draw_emotion(gaussian, alpha, key, mode="log_variance")
        np.testing.assert_allclose(drawn, wanted / np.linalg.norm(wanted), rtol=1e-5)
    np.testing.assert_allclose(draw_emotion(gaussian, 0.0, key, mode="log_variance"), mean, rtol=1e-6)


def test_frames_of_a_track_share_one_noise_vector():
    mean = np.float32([[0.6, 0.8], [0.6, 0.8], [1.0, 0.0]])
    gaussian = Gaussian(jnp.asarray(mean), jnp.full((3, 2), -2.0))
    drawn = draw_emotion(gaussian, 1.0, jax.random.key(1))
    alone = draw_emotion(Gaussian(*(array[:1] for array in gaussian)), 1.0, jax.random.key(1))
    np.testing.assert_allclose(drawn[:2], np.repeat(alone, 2, axis=0), rtol=1e-6)
    assert np.abs(drawn[2] - drawn[1]).max() > 0.1
