"""Which loss and which distance every option of DEE's config stands for."""

import jax
import numpy as np
import pytest

from configs import dee
from deeptalk_jax.losses.contrastive import match_logits, match_loss, pseudo_match_loss
from deeptalk_jax.losses.distances import gaussian_distance
from deeptalk_jax.stages.dee import contrastive_terms, matching_pairs
from deeptalk_jax.stages.dee_evaluation import retrieval_distance
from deeptalk_jax.types import Gaussian

LOSS_ABLATIONS = [name for name, changes in dee.ABLATIONS.items() if any("loss." in key for key in changes)]
EMOTION = np.array([0, 1, 0, 2, 1])


def embeddings(shift):
    """Speech and motion of five clips."""
    mean, log_variance = np.random.default_rng(0).standard_normal((2, 2, 5, 3)).astype(np.float32)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    return [Gaussian(*pair) for pair in zip(mean, log_variance + shift, strict=True)]


def options(**changes):
    with dee.get_config().loss.unlocked() as loss:
        loss.update(changes)
    return loss


def compiled(loss):
    """`contrastive_terms` of the five clips."""

    @jax.jit
    def terms(audio, motion, scale, shift, key):
        matches = matching_pairs(loss.matching, EMOTION)
        return contrastive_terms(loss, audio, motion, matches, scale, shift, key)

    return terms


def terms_of(loss, audio, motion, scale=5.0, shift=5.0):
    return compiled(loss)(audio, motion, scale, shift, jax.random.key(0))


@pytest.mark.parametrize("distance", ["csd", "wasserstein"])
def test_match_and_pseudo_match_terms(distance):
    audio, motion = embeddings(-2.0)
    terms, weights = terms_of(options(distance=distance, smoothing=0.3), audio, motion)

    @jax.jit
    def expected(audio, motion):
        logits = match_logits(gaussian_distance(distance, audio, motion), 5.0, 5.0)
        matches = matching_pairs("same_emotion", EMOTION)
        return {"match": match_loss(logits, matches), "pseudo_match": pseudo_match_loss(logits, matches)}

    for name, value in jax.device_get(expected(audio, motion)).items():
        np.testing.assert_allclose(terms[name], value.mean(), rtol=1e-5, err_msg=name)
    assert terms["pseudo_match"] != terms["match"]
    assert weights == {"match": 1.0, "kl_audio": 1e-6, "kl_motion": 1e-6, "pseudo_match": 0.3}
    assert "pseudo_match" not in terms_of(options(), audio, motion)[0]


def test_monte_carlo_loss_of_narrow_gaussians_is_that_of_their_means():
    audio, motion = embeddings(-30.0)
    terms, _ = terms_of(options(kind="mc_soft_contrastive", num_samples=2), audio, motion)
    distance = np.linalg.norm(audio.mean[:, None] - motion.mean[None], axis=-1)
    expected = match_loss(10.0 - 10.0 * distance, matching_pairs("same_emotion", EMOTION)).mean()
    np.testing.assert_allclose(terms["match"], expected, rtol=1e-4)


def test_monte_carlo_noise_comes_from_the_key():
    audio, motion = embeddings(-2.0)
    terms = compiled(options(kind="mc_soft_contrastive"))
    first, again, other = (
        terms(audio, motion, 5.0, 5.0, jax.random.key(seed))[0]["match"] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_info_nce_sees_means_only_and_both_directions():
    audio, motion = embeddings(-2.0)
    loss = options(kind="info_nce", matching="diagonal")
    terms, weights = terms_of(loss, audio, motion, scale=1.0)
    logits = np.exp(1.0) * audio.mean @ motion.mean.T
    rows, columns = (-np.diag(jax.nn.log_softmax(x)).mean() for x in (logits, logits.T))
    np.testing.assert_allclose(terms["match"], (rows + columns) / 2, rtol=1e-5)
    assert terms.keys() == weights.keys() == {"match"}
    nearest = retrieval_distance(loss, audio, motion).argmin(1)
    np.testing.assert_array_equal(nearest, logits.argmax(1))


@pytest.mark.parametrize("ablation", ["none", *LOSS_ABLATIONS])
def test_every_option_trains_what_it_should(ablation):
    config = dee.get_config(f"ablation={ablation}")

    def total(audio, motion, scale, shift):
        terms, weights = terms_of(config.loss, audio, motion, scale, shift)
        return sum(weights[name] * value for name, value in terms.items())

    start = (config.model.initial_scale, config.model.initial_shift)
    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))(*embeddings(-2.0), *start)
    audio, motion, scale, shift = jax.device_get(gradient)
    assert all(np.abs(side.mean).min() > 0 for side in (audio, motion))
    assert abs(scale) > 0
    of_points = ablation == "info_nce"
    assert all((side.log_variance == 0).all() == of_points for side in (audio, motion))
    assert (shift == 0) == of_points


@pytest.mark.parametrize("distance", ["csd", "wasserstein"])
def test_retrieval_takes_the_distance_of_the_loss(distance):
    audio, motion = embeddings(-2.0)
    for kind in ("csd", "mc_soft_contrastive"):
        found = retrieval_distance(options(kind=kind, distance=distance), audio, motion)
        np.testing.assert_array_equal(found, gaussian_distance(distance, audio, motion))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "triplet"},
            r"loss.kind='triplet' is not one of \('csd', 'mc_soft_contrastive', 'info_nce'\)",
        ),
        ({"kind": "info_nce", "smoothing": 0.1}, "loss.smoothing=0.1 does not go with loss.kind='info_nce'"),
        ({"distance": "kl"}, "distance='kl' is not one of"),
        ({"matching": "actor"}, "matching='actor' is not one of"),
    ],
)
def test_rejected_options(changes, message):
    with pytest.raises(ValueError, match=message):
        terms_of(options(**changes), *embeddings(-2.0))
