"""Errors of motion parameters by hand, and their gradients."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.losses.motion import PARAMETER_ERRORS, jaw_error, parameter_error, squared_error
from tests.support.finite_differences import check_gradients

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
    with pytest.raises(ConfigError, match=r"parameter error 'huber' is not one of \('l1', 'l2'\)"):
        parameter_error("huber", MOTION, MOTION)


def test_jaw_and_squared_errors_by_hand():
    changed = moved(-2.0, 0.3)
    np.testing.assert_allclose(jaw_error(changed, MOTION)[1, 2], 0.03, rtol=1e-5)
    np.testing.assert_allclose(squared_error(changed, MOTION)[1, 2], 4.09 / 53, rtol=1e-5)


def test_gradients_equal_finite_differences():
    def errors(motion, target):
        terms = [parameter_error(kind, motion, target) for kind in PARAMETER_ERRORS]
        return jnp.stack([*terms, jaw_error(motion, target)])

    check_gradients(errors, MOTION[:1], MOTION[1:], step=1e-3)
