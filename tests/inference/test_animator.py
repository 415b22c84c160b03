"""Emotion pooling, emotion draws and waveform scaling, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.inference.animator import _over_rows, draw_emotion, pool_by_precision
from deeptalk_jax.types import Gaussian


def test_precision_pooling_by_hand():
    # Precisions 4, 1 and 1, 1; weights 3/4 and 1/4: 3 + 1/4 and 3/4 + 1/4 in all.
    gaussians = Gaussian(
        jnp.float32([[1.0, 0.0], [0.0, 1.0]]), -jnp.log(jnp.float32([[4.0, 1.0], [1.0, 1.0]]))
    )
    pooled = pool_by_precision(gaussians, jnp.float32([0.75, 0.25]))
    mean = np.array([3.0 / 3.25, 0.25 / 1.0])
    np.testing.assert_allclose(pooled.mean, [mean / np.linalg.norm(mean)], rtol=1e-6)
    np.testing.assert_allclose(np.exp(-pooled.log_variance), [[3.25, 1.0]], rtol=1e-6)


def test_one_window_pools_to_itself():
    gaussian = Gaussian(jnp.float32([[0.6, -0.8]]), jnp.float32([[0.3, -2.0]]))
    pooled = pool_by_precision(gaussian, jnp.ones(1))
    np.testing.assert_allclose(pooled.mean, gaussian.mean, rtol=1e-6)
    np.testing.assert_allclose(pooled.log_variance, gaussian.log_variance, rtol=1e-6)


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


def test_alpha_of_the_published_demo_multiplies_the_log_variance():
    mean = np.float32([[0.48, -0.6, 0.64]])
    log_variance = np.log(np.float32([[0.04, 0.09, 0.01]]))
    gaussian, key = Gaussian(jnp.asarray(mean), jnp.asarray(log_variance)), jax.random.key(3)
    noise = np.asarray(jax.random.normal(key, (1, 3)))
    for alpha in (0.5, 1.0, 2.0):
        wanted = mean + np.exp(0.5 * alpha * log_variance) * noise
        drawn = draw_emotion(gaussian, alpha, key, mode="log_variance")
        np.testing.assert_allclose(drawn, wanted / np.linalg.norm(wanted), rtol=1e-5)
    np.testing.assert_allclose(draw_emotion(gaussian, 0.0, key, mode="log_variance"), mean, rtol=1e-6)


def test_frames_of_a_track_share_the_noise():
    mean = np.float32([[0.6, 0.8], [0.6, 0.8], [1.0, 0.0]])
    gaussian = Gaussian(jnp.asarray(mean), jnp.full((3, 2), -2.0))
    drawn = draw_emotion(gaussian, 1.0, jax.random.key(1))
    alone = draw_emotion(Gaussian(*(array[:1] for array in gaussian)), 1.0, jax.random.key(1))
    np.testing.assert_allclose(drawn[:2], np.repeat(alone, 2, axis=0), rtol=1e-6)
    assert np.abs(drawn[2] - drawn[1]).max() > 0.1


def test_rows_that_fill_a_call_take_no_time_on_a_cpu():
    computed = []

    def double(x, keys):
        jax.debug.callback(lambda rows: computed.extend(rows.tolist()), x)
        return 2.0 * x, jax.vmap(jax.random.bits)(keys)

    rows, keys = jnp.arange(1.0, 6.0), jax.random.split(jax.random.key(0), 5)
    run = jax.jit(lambda num_wanted, *rows: _over_rows(double, num_wanted, *rows))
    doubled, bits = run(3, rows, keys)
    jax.effects_barrier()
    assert computed == [1.0, 2.0, 3.0]
    np.testing.assert_array_equal(doubled[:3], 2.0 * rows[:3])
    np.testing.assert_array_equal(bits[:3], jax.vmap(jax.random.bits)(keys)[:3])
