"""Losses of the motion prior and its baselines, and a few steps of each kind."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import motion_prior
from deeptalk_jax.head.gram import FEATURE_DIM
from deeptalk_jax.models.prior_output import PriorOutput
from deeptalk_jax.models.quantizer import Quantized
from deeptalk_jax.stages.motion_prior import (
    MotionPriorStage,
    bottleneck_terms,
    distance_weights,
    reconstruction_terms,
    savitzky_golay,
)
from deeptalk_jax.types import Gaussian
from tests.support.motion_features import motion_features

# Random factors in place of those of a head, because only the computation matters here.
FACTORS = {
    name: np.random.default_rng(seed).normal(0, 1e-4, (60, FEATURE_DIM)).astype(np.float32)
    for seed, name in enumerate(("vertex", "lips", "eyes", "velocity", "lip_gap", "lid_gap", "tremble"))
}
_NO_GAPS = {"loss.lip_gap_weight": 0.0, "loss.lid_gap_weight": 0.0, "loss.velocity_weight": 0.0}
FROZEN = {"factors": FACTORS}


def tiny(ablation="none", **changes):
    config = motion_prior.get_config(f"ablation={ablation}").unlock()
    model = {"dim": 8, "mlp_dim": 12, "decoder_mlp_dim": 20, "num_heads": 4}
    model |= {"codebook_size_top": 6, "codebook_size_bottom": 7}
    config.model.update(model)
    config.update_from_flattened_dict(_NO_GAPS | changes)
    return config.lock()


def test_parameter_and_jaw_losses_by_hand():
    motion, target = np.zeros((2, 3, 53), np.float32), np.zeros((2, 3, 53), np.float32)
    target[0, 0, 0], target[0, 1, 51] = 2.0, -0.5
    motion[1, 2] = 100.0  # padding
    mask = np.array([[True, True, True], [True, True, False]])

    def terms(measure):
        loss = tiny(**{"loss.reconstruction": measure, "loss.jaw_weight": 3.0}).loss
        return reconstruction_terms(loss, FACTORS, *map(jnp.asarray, (motion, target, mask)))

    absolute, weights = terms("parameters_l1")
    np.testing.assert_allclose(absolute["parameters"], 2.0 / (5 * 50) + 0.5 / (5 * 3), rtol=1e-6)
    np.testing.assert_allclose(absolute["jaw"], 0.25 / (5 * 3), rtol=1e-6)
    assert weights == {"parameters": 1.0, "jaw": 3.0}
    squared, _ = terms("parameters_l2")
    np.testing.assert_allclose(squared["parameters"], 4.0 / (5 * 50) + 0.25 / (5 * 3), rtol=1e-6)
    assert terms("vertices")[1] == {"vertex": 1e6, "jaw": 3.0}
    with pytest.raises(
        ValueError, match=r"loss\.reconstruction='pixels': expected one of vertices, parameters_l1"
    ):
        terms("pixels")


def test_distances_of_regions_and_velocities():
    rng = np.random.default_rng(0)
    motion, target = rng.normal(0, 0.3, (2, 2, 4, 53)).astype(np.float32)
    mask = np.array([[True] * 4, [True, True, False, False]])
    extra = {"lip": 2.0, "eye": 3.0, "velocity": 5.0, "lip_gap": 7.0, "lid_gap": 11.0, "tremble": 13.0}
    loss = tiny(**{f"loss.{name}_weight": weight for name, weight in extra.items()}).loss
    terms, weights = reconstruction_terms(loss, FACTORS, *map(jnp.asarray, (motion, target, mask)))
    assert weights == {
        "vertex": 1e6,
        "lips": 2.0,
        "eyes": 3.0,
        "velocity": 5.0,
        "lip_gap": 7.0,
        "lid_gap": 11.0,
        "tremble": 13.0,
    }
    difference = motion_features(motion) - motion_features(target)
    for name in ("vertex", "lips", "eyes", "lip_gap", "lid_gap"):
        squares = np.square(difference @ FACTORS[name].T).sum(-1)
        np.testing.assert_allclose(terms[name], squares[mask].mean(), rtol=1e-5)
    for order, name in ((1, "velocity"), (2, "tremble")):
        moved = np.square(np.diff(difference, n=order, axis=1) @ FACTORS[name].T).sum(-1)
        # A difference is valid if its latest frame is.
        np.testing.assert_allclose(terms[name], moved[mask[:, order:]].mean(), rtol=1e-5)
    parameters = tiny(**{"loss.reconstruction": "parameters_l2"}).loss
    assert not distance_weights(parameters)


def test_bottleneck_losses_by_hand():
    loss = tiny().loss
    codes = Quantized(None, None, 1.0, None)
    terms, weights = bottleneck_terms(
        loss, PriorOutput(None, {"top": codes, "bottom": codes._replace(commitment=2.0, codebook_loss=3.0)})
    )
    assert terms == {"commitment_top": 1.0, "commitment_bottom": 2.0, "codebook_bottom": 3.0}
    assert set(weights.items()) == {(name, 1.0) for name in terms}
    # Mean 2 and variance 1 have a KL of 2 per channel; there are 3 channels.
    latents = Gaussian(jnp.full((2, 4, 3), 2.0), jnp.zeros((2, 4, 3)))
    terms, weights = bottleneck_terms(loss, PriorOutput(None, {}, latents))
    np.testing.assert_allclose(terms["kl"], 6.0, rtol=1e-6)
    assert weights == {"kl": loss.kl_weight}


TERMS = {
    "one_level_equal_rate": {"vertex", "commitment_codes", "perplexity_codes"},
    "temporal_vae": {"vertex", "kl"},
    "parameters_l1": {"parameters"}
    | {f"{name}_{level}" for name in ("commitment", "perplexity") for level in ("top", "bottom")},
    "gradient_codebook": {"vertex"}
    | {f"{name}_{level}" for name in ("commitment", "codebook", "perplexity") for level in ("top", "bottom")},
}


def gradient_of(stage, batch):
    """Returns the compiled `(params, state, key) -> ((state, terms), gradients)` of the loss of a stage."""

    def gradient(params, state, key):
        (_, aux), gradients = jax.value_and_grad(stage.loss_fn, has_aux=True)(
            params, state, FROZEN, batch, 0, key
        )
        return aux, gradients

    return gradient


@pytest.mark.parametrize("ablation", TERMS)
def test_terms_of_a_step(ablation):
    stage = MotionPriorStage(tiny(ablation))
    batch = {"motion": np.zeros((2, 16, 53), np.float32), "num_frames": np.full(2, 16, np.int32)}
    state = dict(jax.eval_shape(stage.init, jax.random.key(0)))
    params = state.pop("params")
    (new_state, terms), gradients = jax.eval_shape(
        gradient_of(stage, batch), params, state, jax.random.key(1)
    )
    assert terms.keys() == TERMS[ablation]
    assert jax.tree.structure(new_state) == jax.tree.structure(state)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)


def test_the_vae_learns_a_batch():
    stage = MotionPriorStage(tiny("temporal_vae"))
    motion = np.random.default_rng(0).normal(0, 0.5, (4, 16, 53)).astype(np.float32)
    batch = {"motion": np.asarray(savitzky_golay(motion)), "num_frames": np.full(4, 16, np.int32)}
    optimiser = optax.adam(3e-3)
    gradient = gradient_of(stage, batch)

    @jax.jit
    def step(params, state, moments, key):
        (state, terms), gradients = gradient(params, state, key)
        updates, moments = optimiser.update(gradients, moments)
        return optax.apply_updates(params, updates), state, moments, terms["vertex"], gradients

    state = dict(jax.jit(stage.init)(jax.random.key(0)))
    params = state.pop("params")
    moments, errors = optimiser.init(params), []
    for key in jax.random.split(jax.random.key(1), 40):
        params, state, moments, error, gradients = step(params, state, moments, key)
        errors.append(float(error))
    assert errors[-1] < 0.8 * errors[0], errors
    reached = {
        jax.tree_util.keystr(path): bool(leaf.any())
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    }
    # The bias of a key moves all scores of a query alike.
    assert not [name for name, moved in reached.items() if not moved and "['key']['bias']" not in name]
