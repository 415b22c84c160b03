"""Lip-reading loss by hand, and its gradient from the picture to the motion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import lip_reader
from deeptalk_jax.assembly.build import init_lip_reader
from deeptalk_jax.losses.lip_reading import lip_reading_error
from deeptalk_jax.models.visual_speech import LipReader
from deeptalk_jax.stages.lip_reader import LipReaderStage
from deeptalk_jax.types import EXPRESSION_DIM


def test_error_is_one_minus_the_cosine():
    features = jnp.array([[[3.0, 4.0], [1.0, 0.0], [0.0, 2.0]]])
    target = jnp.array([[[6.0, 8.0], [0.0, 5.0], [0.0, -1.0]]])
    np.testing.assert_allclose(lip_reading_error(features, target), [[0.0, 1.0, 2.0]], atol=1e-6)


def test_target_has_no_gradient_and_zero_features_have_a_finite_one():
    def total(features, target):
        return jnp.sum(lip_reading_error(features, target))

    features, target = jax.random.normal(jax.random.key(0), (2, 2, 3, 5))
    of_features, of_target = jax.grad(total, (0, 1))(features, target)
    assert np.abs(of_features).min() > 0
    np.testing.assert_array_equal(of_target, 0.0)
    empty = jax.grad(total)(jnp.zeros((1, 1, 4)), target[:1, :1, :4])
    assert np.isfinite(empty).all()


@pytest.fixture(scope="module")
def stage():
    config = lip_reader.get_config("variant=mini").unlock()
    config.update_from_flattened_dict(
        {"model.crop_size": 20, "model.front_channels": 3, "model.channels": (4,), "model.num_blocks": (1,)}
    )
    return LipReaderStage(config)


def test_the_gradient_reaches_jaw_and_expression_through_the_picture(stage):
    variables = init_lip_reader(stage.model, 20, jax.random.key(0))
    motion, target = np.random.default_rng(0).uniform(0, 0.3, (2, 1, 1, 53)).astype(np.float32)

    @jax.jit
    def error(motion, target):
        def total(motion):
            features = stage.model.apply(
                variables,
                stage.renderer.from_motion(jnp.concatenate([motion, target])),
                method=LipReader.features,
            )
            return jnp.mean(lip_reading_error(features[:1], features[1:]))

        return jax.value_and_grad(total)(motion)

    value, gradient = error(motion, target)
    assert 0 < value < 2
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[..., EXPRESSION_DIM]).min() > 0, "the loss has no gradient for the jaw"
    moved = np.abs(gradient[0, 0, :EXPRESSION_DIM]) > 0
    assert moved.sum() > 20, "the loss has no gradient for most of the expression"
    assert error(motion, motion)[0] == pytest.approx(0.0, abs=1e-6)
