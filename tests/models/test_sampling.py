import jax
import jax.numpy as jnp
import numpy as np

from deeptalk_jax.models.sampling import choose_codes, straight_through_gumbel_softmax


def test_straight_through_forward_is_one_hot_and_backward_is_soft():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
    weights = jax.random.normal(jax.random.key(1), (2, 3, 5))
    key, tau = jax.random.key(2), 0.7
    hard = straight_through_gumbel_softmax(logits, tau, key)
    np.testing.assert_allclose(np.sort(hard, -1)[..., :-1], 0, atol=1e-6)
    np.testing.assert_allclose(hard.sum(-1), 1, rtol=1e-6)
    noise = jax.random.gumbel(key, logits.shape)
    np.testing.assert_array_equal(hard.argmax(-1), (logits + noise).argmax(-1))

    gradient = jax.grad(lambda x: jnp.sum(straight_through_gumbel_softmax(x, tau, key) * weights))(logits)
    soft = jax.grad(lambda x: jnp.sum(jax.nn.softmax((x + noise) / tau) * weights))(logits)
    np.testing.assert_allclose(gradient, soft, rtol=1e-5, atol=1e-6)


def test_tau_does_not_change_the_choice():
    logits = jax.random.normal(jax.random.key(0), (4, 9))
    choices = [
        straight_through_gumbel_softmax(logits, tau, jax.random.key(3)).argmax(-1) for tau in (2.0, 0.1)
    ]
    np.testing.assert_array_equal(*choices)


def test_temperature_zero_is_the_most_likely_code():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
    keys = jax.random.split(jax.random.key(1), 2)
    np.testing.assert_array_equal(choose_codes(logits, 0.0, keys, jnp.zeros(2, int)), logits.argmax(-1))


def test_choices_follow_softmax_at_the_temperature():
    logits = jnp.array([0.0, 1.0, 2.0])
    temperature, num = 0.5, 20_000
    many = jnp.broadcast_to(logits, (1, num, 3))
    chosen = choose_codes(many, temperature, jax.random.key(0)[None], jnp.zeros(1, int))
    frequency = np.bincount(np.asarray(chosen[0]), minlength=3) / num
    np.testing.assert_allclose(frequency, jax.nn.softmax(logits / temperature), atol=0.015)


def test_noise_belongs_to_the_position_not_to_the_window_or_the_batch():
    logits = jax.random.normal(jax.random.key(0), (1, 8, 5))
    keys = jax.random.split(jax.random.key(1), 2)
    whole = choose_codes(logits, 1.0, keys[:1], jnp.zeros(1, int))
    window = choose_codes(logits[:, 3:], 1.0, keys[:1], jnp.array([3]))
    np.testing.assert_array_equal(window, whole[:, 3:])
    batch = choose_codes(jnp.concatenate([logits, logits]), 1.0, keys, jnp.zeros(2, int))
    np.testing.assert_array_equal(batch[:1], whole)
    assert (batch[1] != batch[0]).any()
