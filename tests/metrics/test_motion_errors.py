"""Vertex errors by hand for simple motions, and the correlation of signals."""

import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head.load import load_head
from deeptalk_jax.metrics.motion import Correlation, MotionErrors, RegionErrors, jaw_opening


def test_errors_of_a_translated_head_equal_the_translation():
    head = load_head("procedural")
    # The head has one expression direction, which moves every vertex by (3, 4, 0) mm.
    shifted = (
        jnp.zeros_like(jnp.asarray(head.expression_directions)).at[:, 0, 0].set(3e-3).at[:, 1, 0].set(4e-3)
    )
    head = head.replace(expression_directions=shifted)
    errors, regions = MotionErrors(head), RegionErrors(head)
    truth = np.zeros((7, 53), np.float32)
    moved = truth.copy()
    moved[:, 0] = 1.0
    still = np.zeros((33, 53), np.float32)
    for metric in (errors, regions):
        metric.add(truth, moved=moved, held=moved[:1])
        metric.add(still, moved=still)
    assert errors.vertex_error_mm("moved") == pytest.approx(5.0 * 7 / 40, rel=1e-4)
    assert errors.lip_error_mm("moved") == pytest.approx(5.0 * 7 / 40, rel=1e-4)
    assert errors.lip_error_mm("held") == pytest.approx(5.0, rel=1e-4)
    names = ("all", "lips", "eyes", "forehead", "face", "mouth_interior", "rest")
    assert regions.rms_mm("held") == pytest.approx(dict.fromkeys(names, 5.0), rel=1e-4)
    assert regions.rms_mm("moved") == pytest.approx(dict.fromkeys(names, 5.0 * np.sqrt(7 / 40)), rel=1e-4)
    with pytest.raises(ValueError, match=r"moved \(7, 53\) and target \(3, 53\) differ in shape"):
        errors.add(truth[:3], moved=moved)


def test_lip_error_is_that_of_the_worst_lip_vertex():
    head = load_head("procedural")
    truth = np.zeros((2, 53), np.float32)
    opened = truth.copy()
    opened[:, 50] = 0.2
    errors = MotionErrors(head)
    errors.add(truth, opened=opened)
    assert errors.lip_error_mm("opened") > 3 * errors.vertex_error_mm("opened") > 0
    np.testing.assert_array_equal(jaw_opening(opened), 0.2 * np.ones(2, np.float32))


def test_correlation_pools_clips_and_is_zero_for_a_constant_signal():
    signal = np.sin(np.arange(20.0))
    both = Correlation()
    both.add(signal[:5], 2 * signal[:5] + 1)
    both.add(signal[5:], 2 * signal[5:] + 1)
    assert both.value == pytest.approx(1.0)
    still = Correlation()
    still.add(np.ones(4), signal[:4])
    assert still.value == 0.0
