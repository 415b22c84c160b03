"""Choice of codes: straight-through gradients, temperature, nucleus and noise by position."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.sampling import choose_codes, nucleus, straight_through_gumbel_softmax


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


def test_tau_does_not_change_the_sample():
    logits = jax.random.normal(jax.random.key(0), (4, 9))
    choices = [
        straight_through_gumbel_softmax(logits, tau, jax.random.key(3)).argmax(-1) for tau in (2.0, 0.1)
    ]
    np.testing.assert_array_equal(*choices)


def test_temperature_zero_chooses_the_most_likely_code():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
    keys = jax.random.split(jax.random.key(1), 2)
    np.testing.assert_array_equal(choose_codes(logits, 0.0, keys, jnp.zeros(2, int)), logits.argmax(-1))


def test_frequencies_equal_the_softmax_at_the_temperature():
    logits = jnp.array([0.0, 1.0, 2.0])
    temperature, num = 0.5, 20_000
    many = jnp.broadcast_to(logits, (1, num, 3))
    chosen = choose_codes(many, temperature, jax.random.key(0)[None], jnp.zeros(1, int))
    frequency = np.bincount(np.asarray(chosen[0]), minlength=3) / num
    np.testing.assert_allclose(frequency, jax.nn.softmax(logits / temperature), atol=0.015)


def test_noise_depends_on_the_position_and_not_on_window_or_batch():
    logits = jax.random.normal(jax.random.key(0), (1, 8, 5))
    keys = jax.random.split(jax.random.key(1), 2)
    whole = choose_codes(logits, 1.0, keys[:1], jnp.zeros(1, int))
    window = choose_codes(logits[:, 3:], 1.0, keys[:1], jnp.array([3]))
    np.testing.assert_array_equal(window, whole[:, 3:])
    batch = choose_codes(jnp.concatenate([logits, logits]), 1.0, keys, jnp.zeros(2, int))
    np.testing.assert_array_equal(batch[:1], whole)
    assert (batch[1] != batch[0]).any()


def test_nucleus_by_hand():
    probabilities = jnp.array([[0.1, 0.5, 0.15, 0.25], [0.25, 0.25, 0.25, 0.25], [0.0, 0.3, 0.3, 0.4]])
    for top_p, wanted in (
        (0.0, [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]),
        (0.5, [[0, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 1]]),  # reached exactly; the first of equal codes
        (0.51, [[0, 1, 0, 1], [1, 1, 1, 0], [0, 1, 0, 1]]),
        (0.9, [[0, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]),
        (1.0, [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]),
    ):
        np.testing.assert_array_equal(nucleus(probabilities, top_p), wanted, err_msg=f"top_p={top_p}")


def test_frequencies_equal_those_of_the_nucleus_at_the_temperature():
    probabilities, temperature, num = jnp.array([0.05, 0.4, 0.25, 0.3]), 0.5, 20_000
    many = jnp.broadcast_to(temperature * jnp.log(probabilities), (1, num, 4))
    chosen = {
        top_p: np.asarray(
            choose_codes(many, temperature, jax.random.key(0)[None], jnp.zeros(1, int), top_p=top_p)
        )
        for top_p in (0.0, 0.1, 0.6, 1.0)
    }
    frequency = np.bincount(chosen[0.6][0], minlength=4) / num
    np.testing.assert_allclose(frequency, [0, 0.4 / 0.7, 0, 0.3 / 0.7], atol=0.012)
    assert (chosen[0.0] == 1).all() and (chosen[0.1] == 1).all()
    np.testing.assert_array_equal(
        chosen[1.0], choose_codes(many, temperature, jax.random.key(0)[None], jnp.zeros(1, int))
    )


@pytest.mark.parametrize("top_p", [0.0, 0.5, 1.0])
def test_the_first_of_equal_logits_is_chosen_at_temperature_zero(top_p):
    logits = jnp.array([[[1e4, -3e4, 1e4], [0.0, 0.0, -1e-6]]])
    chosen = choose_codes(logits, 0.0, jax.random.key(0)[None], jnp.zeros(1, int), top_p=top_p)
    np.testing.assert_array_equal(chosen, [[0, 0]])
