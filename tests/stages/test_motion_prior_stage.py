"""Losses of the motion prior's variants, and a few steps of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeptalk_jax.head.gram import FEATURE_DIM
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.models.quantizer import Quantized
from deeptalk_jax.stages.base import merged
from deeptalk_jax.stages.motion_prior import (
    MotionPriorStage,
    bottleneck_terms,
    reconstruction_terms,
    savitzky_golay,
)
from deeptalk_jax.types import Gaussian


def test_parameter_and_jaw_losses_by_hand(tiny_config):
    motion, target = np.zeros((2, 3, 53), np.float32), np.zeros((2, 3, 53), np.float32)
    target[0, 0, 0], target[0, 1, 51] = 2.0, -0.5
    motion[1, 2] = 100.0  # padding
    mask = np.array([[True, True, True], [True, True, False]])
    factor = np.zeros((1, FEATURE_DIM), np.float32)

    def terms(measure):
        loss = tiny_config("motion_prior", **{"loss.reconstruction": measure, "loss.jaw_weight": 3.0}).loss
        return reconstruction_terms(loss, factor, *map(jnp.asarray, (motion, target, mask)))

    absolute, weights = terms("parameters_l1")
    np.testing.assert_allclose(absolute["parameters"], 2.5 / (5 * 53), rtol=1e-6)
    np.testing.assert_allclose(absolute["jaw"], 0.25 / (5 * 3), rtol=1e-6)
    assert weights == {"parameters": 1.0, "jaw": 3.0}
    squared, _ = terms("parameters_l2")
    np.testing.assert_allclose(squared["parameters"], 4.25 / (5 * 53), rtol=1e-6)
    vertices, weights = terms("vertices")
    assert (float(vertices["vertex"]), weights["vertex"]) == (0.0, 1e6)
    with pytest.raises(ValueError, match=r"loss\.reconstruction='pixels' is not one of"):
        terms("pixels")


def test_bottleneck_losses_by_hand(tiny_config):
    loss = tiny_config("motion_prior").loss
    codes = Quantized(None, None, 1.0, None)
    terms, weights = bottleneck_terms(
        loss, PriorOutput(None, {"top": codes, "bottom": codes._replace(commitment=2.0, codebook_loss=3.0)})
    )
    assert terms == {"commitment_top": 1.0, "commitment_bottom": 2.0, "codebook_bottom": 3.0}
    assert set(weights.items()) == {(name, 1.0) for name in terms}
    # Mean 2, unit variance: KL 2 for each channel; 3 channels.
    latents = Gaussian(jnp.full((2, 4, 3), 2.0), jnp.zeros((2, 4, 3)))
    terms, weights = bottleneck_terms(loss, PriorOutput(None, {}, latents))
    np.testing.assert_allclose(terms["kl"], 6.0, rtol=1e-6)
    assert weights == {"kl": loss.kl_weight}


KINDS = {
    "one_level": {"model.kind": "one_level"},
    "temporal_vae": {"model.kind": "temporal_vae"},
    "gradient": {
        "model.codebook_update": "gradient",
        "model.codebook_initialisation": "uniform",
        "model.revive_after": 0,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_a_batch(tiny_config, kind):
    stage = MotionPriorStage(tiny_config("motion_prior", **KINDS[kind]))
    batch = {
        "motion": np.random.default_rng(0).normal(0, 0.5, (4, 16, 53)).astype(np.float32),
        "num_frames": np.full(4, 16, np.int32),
    }
    batch["motion"] = np.asarray(savitzky_golay(batch["motion"]))
    frozen = stage.frozen_variables()
    optimiser = optax.adam(3e-3)

    @jax.jit
    def step(params, state, moments, key):
        (_, (state, terms)), gradients = jax.value_and_grad(stage.loss_fn, has_aux=True)(
            params, state, frozen, batch, 0, key
        )
        updates, moments = optimiser.update(gradients, moments)
        return optax.apply_updates(params, updates), state, moments, terms, gradients

    state = dict(jax.jit(stage.init)(jax.random.key(0)))
    params = state.pop("params")
    moments, errors = optimiser.init(params), []
    for key in jax.random.split(jax.random.key(1), 40):
        params, state, moments, terms, gradients = step(params, state, moments, key)
        errors.append(float(terms["vertex"]))
    assert errors[-1] < 0.8 * errors[0], errors
    without = [
        jax.tree_util.keystr(path)
        for path, g in jax.tree_util.tree_leaves_with_path(gradients)
        if not g.any()
    ]
    assert not [name for name in without if "['key']['bias']" not in name], without
    assert np.isfinite(stage.model.apply(merged(params, state), batch["motion"]).motion).all()
