import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finite_differences import check_gradients

from deeptalk_jax.losses.motion import (
    PARAMETER_ERRORS,
    jaw_error,
    parameter_error,
    squared_error,
    standardised_over_time,
    velocity_error,
)

MOTION = np.random.default_rng(0).standard_normal((2, 4, 53)).astype(np.float32)


def moved(expression, jaw):
    """`MOTION` with one coefficient and one angle of one frame changed."""
    motion = MOTION.copy()
    motion[1, 2, 7] += expression
    motion[1, 2, 51] += jaw
    return motion


@pytest.mark.parametrize(("kind", "expected"), [("l1", 2.0 / 50 + 0.3 / 3), ("l2", 4.0 / 50 + 0.09 / 3)])
def test_parameter_errors_by_hand(kind, expected):
    error = parameter_error(kind, moved(-2.0, 0.3), MOTION)
    assert error.shape == (2, 4)
    np.testing.assert_allclose(error[1, 2], expected, rtol=1e-5)
    np.testing.assert_allclose(error.sum(), expected, rtol=1e-5)


def test_unknown_parameter_error_lists_the_choices():
    with pytest.raises(ValueError, match=r"parameter error 'huber' is not one of \('l1', 'l2'\)"):
        parameter_error("huber", MOTION, MOTION)


def test_jaw_and_squared_errors_by_hand():
    changed = moved(-2.0, 0.3)
    np.testing.assert_allclose(jaw_error(changed, MOTION)[1, 2], 0.03, rtol=1e-5)
    np.testing.assert_allclose(squared_error(changed, MOTION)[1, 2], 4.09 / 53, rtol=1e-5)


def test_velocity_error_by_hand():
    error = velocity_error(moved(-2.0, 0.3), MOTION)
    assert error.shape == (2, 3)
    expected = np.zeros((2, 3))
    expected[1, 1:] = 4.09 / 53  # into the changed frame and out of it
    np.testing.assert_allclose(error, expected, rtol=1e-5)
    np.testing.assert_allclose(velocity_error(MOTION + 3.0, MOTION), 0.0, atol=1e-10)


def test_standardised_motion():
    motion = MOTION.copy()
    motion[0, :, 5] = 2.0  # stands still
    expected = (motion - motion.mean(1, keepdims=True)) / motion.std(1, ddof=1, keepdims=True).clip(1e-9)
    np.testing.assert_allclose(standardised_over_time(motion), expected, rtol=1e-4, atol=1e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(MOTION * standardised_over_time(x))))(motion)
    assert np.isfinite(gradient).all()


def test_gradients_against_finite_differences():
    def errors(motion, target):
        terms = [parameter_error(kind, motion, target)[:, 1:] for kind in PARAMETER_ERRORS]
        return jnp.stack([*terms, velocity_error(motion, target)])

    check_gradients(errors, MOTION[:1], MOTION[1:], step=1e-3)
