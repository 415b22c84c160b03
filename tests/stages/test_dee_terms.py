"""The loss terms that each option of the DEE config selects."""

import jax
import numpy as np
import pytest

from configs import dee
from deeptalk_jax.evaluation.emotion_space import retrieval_distance
from deeptalk_jax.losses.contrastive import match_logits, match_loss, pseudo_match_loss
from deeptalk_jax.losses.distances import gaussian_distance
from deeptalk_jax.stages.dee_terms import contrastive_terms, match_labels, matching_pairs
from deeptalk_jax.training.mesh import batch_sharding, make_mesh
from deeptalk_jax.types import Gaussian

LOSS_ABLATIONS = [
    name
    for name, changes in dee.ABLATIONS.items()
    if {key for key in changes if "loss." in key} - {"loss.kl_weight"}
]
EMOTION = np.array([0, 1, 0, 2, 1, 3, 2, 0], np.int32)


def mixtures(shift, num_components=1):
    """Returns random mixtures `[b, k, d]` of the speech and of the motion of eight clips."""
    shape = (2, 2, 8, num_components, 3)
    mean, log_variance = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    mean /= np.linalg.norm(mean, axis=-1, keepdims=True)
    return [Gaussian(*pair) for pair in zip(mean, log_variance + shift, strict=True)]


def embeddings(shift):
    """Returns random Gaussians `[b, d]` of the speech and of the motion of eight clips."""
    return [Gaussian(*(moment[:, 0] for moment in side)) for side in mixtures(shift)]


def options(**changes):
    with dee.get_config().loss.unlocked() as loss:
        loss.update(changes)
    return loss


def compiled(loss):
    """Returns the compiled `contrastive_terms` for eight clips."""

    @jax.jit
    def terms(audio, motion, scale, shift, key):
        labels = match_labels(loss.matching, EMOTION)
        return contrastive_terms(loss, audio, motion, labels, scale, shift, key)

    return terms


def terms_of(loss, audio, motion, scale=5.0, shift=5.0):
    mixtures = (Gaussian(*(moment[:, None] for moment in side)) for side in (audio, motion))
    return compiled(loss)(*mixtures, scale, shift, jax.random.key(0))


@pytest.mark.parametrize("distance", ["csd", "wasserstein"])
def test_match_and_pseudo_match_terms(distance):
    audio, motion = embeddings(-2.0)
    terms, weights = terms_of(options(distance=distance, smoothing=0.3), audio, motion)

    @jax.jit
    def expected(audio, motion):
        logits = match_logits(gaussian_distance(distance, audio, motion), 5.0, 5.0)
        matches = matching_pairs("same_emotion", EMOTION)
        pseudo = pseudo_match_loss(logits, matches) + pseudo_match_loss(logits.T, matches.T).T
        return {"match": match_loss(logits, matches), "pseudo_match": pseudo}

    for name, value in jax.device_get(expected(audio, motion)).items():
        np.testing.assert_allclose(terms[name], value.mean(), rtol=1e-5, err_msg=name)
    assert terms["pseudo_match"] != terms["match"]
    assert weights == {"match": 1.0, "kl_audio": 1e-6, "kl_motion": 1e-6, "pseudo_match": 0.3}
    assert "pseudo_match" not in terms_of(options(), audio, motion)[0]


def test_the_monte_carlo_loss_of_narrow_gaussians_equals_the_loss_of_their_means():
    audio, motion = embeddings(-30.0)
    terms, _ = terms_of(options(kind="mc_soft_contrastive", num_samples=2), audio, motion)
    distance = np.linalg.norm(audio.mean[:, None] - motion.mean[None], axis=-1)
    expected = match_loss(10.0 - 10.0 * distance, matching_pairs("same_emotion", EMOTION)).mean()
    np.testing.assert_allclose(terms["match"], expected, rtol=1e-4)


def test_the_key_determines_the_monte_carlo_samples():
    audio, motion = mixtures(-2.0)
    terms = compiled(options(kind="mc_soft_contrastive"))
    first, again, other = (
        terms(audio, motion, 5.0, 5.0, jax.random.key(seed))[0]["match"] for seed in (0, 0, 1)
    )
    assert first == again != other


def test_info_nce_compares_means_in_both_directions():
    audio, motion = embeddings(-2.0)
    loss = options(kind="info_nce", matching="diagonal")
    terms, weights = terms_of(loss, audio, motion, scale=1.0)
    logits = np.exp(1.0) * audio.mean @ motion.mean.T
    rows, columns = (-np.diag(jax.nn.log_softmax(x)).mean() for x in (logits, logits.T))
    np.testing.assert_allclose(terms["match"], (rows + columns) / 2, rtol=1e-5)
    assert terms.keys() == weights.keys() == {"match"}
    nearest = retrieval_distance(loss, audio, motion).argmin(1)
    np.testing.assert_array_equal(nearest, logits.argmax(1))


def test_bottleneck_by_hand():
    """1e-6 times the mean over clips and channels of (mean^2 + variance - log-variance - 1) / 2, for each tower."""
    audio = Gaussian(np.float32([[0.6, 0.8], [1.0, 0.0]]), np.log(np.float32([[1.0, 2.0], [1.0, 0.5]])))
    motion = Gaussian(np.float32([[0.0, 1.0], [0.0, 1.0]]), np.zeros((2, 2), np.float32))
    loss = options(matching="diagonal")
    terms, weights = contrastive_terms(
        loss,
        *(Gaussian(*(moment[:, None] for moment in side)) for side in (audio, motion)),
        np.arange(2),
        np.float32(5.0),
        np.float32(5.0),
        jax.random.key(0),
    )
    by_hand = (0.36 + (0.64 + 1.0 - np.log(2.0)) + 1.0 + (-0.5 - np.log(0.5))) / 2 / 4
    np.testing.assert_allclose(terms["kl_audio"], by_hand, rtol=1e-5)
    np.testing.assert_allclose(terms["kl_motion"], 0.25, rtol=1e-5)
    assert weights["kl_audio"] == weights["kl_motion"] == 1e-6


def test_samples_of_a_mixture_come_from_all_components():
    """Without variance the match probability is the mean over all pairs of components."""
    audio, motion = mixtures(-60.0, num_components=2)
    loss = options(kind="mc_soft_contrastive", num_samples=3, matching="diagonal")
    terms, _ = compiled(loss)(audio, motion, 0.6, 0.2, jax.random.key(0))
    distance = np.linalg.norm(audio.mean[:, None, :, None] - motion.mean[None, :, None], axis=-1)
    match = (1.0 / (1.0 + np.exp(-2.0 * (0.2 - 0.6 * distance)))).mean((2, 3))
    entropy = -np.log(np.where(np.eye(8) > 0, match, 1.0 - match))
    np.testing.assert_allclose(terms["match"], 2.0 * entropy.mean(), rtol=1e-5)


def gradients(config):
    """Returns the compiled `(audio, motion, scale, shift) -> (total loss, gradients)`."""

    def total(audio, motion, scale, shift):
        labels = match_labels(config.loss.matching, EMOTION)
        terms, weights = contrastive_terms(
            config.loss, audio, motion, labels, scale, shift, jax.random.key(0)
        )
        return sum(weights[name] * value for name, value in terms.items())

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))


@pytest.mark.parametrize("ablation", ["none", *LOSS_ABLATIONS])
def test_each_option_trains_its_parameters_and_eight_devices_equal_one(ablation):
    config = dee.get_config(f"ablation={ablation}")
    start = (config.model.initial_scale, config.model.initial_shift)
    sides, step = mixtures(-2.0, config.model.num_components), gradients(config)
    one = jax.device_get(step(*sides, *start))
    eight = step(*jax.device_put(sides, batch_sharding(make_mesh(8))), *start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), eight, one)
    audio, motion, scale, shift = one[1]
    assert all(np.abs(side.mean).min() > 0 for side in (audio, motion))
    assert abs(scale) > 0
    of_points = ablation == "info_nce"
    assert all((side.log_variance == 0).all() == of_points for side in (audio, motion))
    assert (shift == 0) == of_points


@pytest.mark.parametrize("ablation", ["pseudo_positives", "mixture"])
def test_blocks_of_rows_give_the_loss_and_gradient_of_the_whole_matrix(ablation):
    config = dee.get_config(f"ablation={ablation}").copy_and_resolve_references()
    start = (config.model.initial_scale, config.model.initial_shift)
    sides = mixtures(-2.0, config.model.num_components)
    whole = gradients(config)(*sides, *start)
    config.loss.chunk_rows = 2
    sharded = jax.device_put(sides, batch_sharding(make_mesh(2)))
    blocks = gradients(config)(*sharded, *start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), blocks, whole)


@pytest.mark.parametrize("distance", ["csd", "wasserstein"])
def test_retrieval_uses_the_distance_of_the_loss(distance):
    audio, motion = embeddings(-2.0)
    for kind in ("csd", "mc_soft_contrastive"):
        found = retrieval_distance(options(kind=kind, distance=distance), audio, motion)
        np.testing.assert_array_equal(found, gaussian_distance(distance, audio, motion))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "triplet"},
            r"loss\.kind='triplet': expected one of csd, mc_soft_contrastive, info_nce",
        ),
        (
            {"kind": "info_nce", "smoothing": 0.1},
            r"loss\.smoothing=0\.1: expected 0 with loss\.kind='info_nce'",
        ),
        ({"chunk_rows": 3}, "chunk_rows=3 does not divide a batch of 8 rows"),
        ({"distance": "kl"}, "distance='kl' is not one of"),
        ({"matching": "actor"}, r"loss\.matching='actor': expected one of diagonal, same_emotion"),
    ],
)
def test_unusable_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        terms_of(options(**changes), *embeddings(-2.0))


@pytest.mark.parametrize("kind", ["csd", "info_nce"])
def test_only_the_sampled_loss_takes_mixtures(kind):
    message = rf"model\.num_components=2: expected 1 with loss\.kind='{kind}'"
    with pytest.raises(ValueError, match=message):
        compiled(options(kind=kind))(*mixtures(-2.0, 2), 5.0, 5.0, jax.random.key(0))


def temporary_bytes(num_devices, rows=512, dim=32, **changes):
    """Returns the temporary memory per device of the loss and its gradient, bytes."""
    loss = options(matching="diagonal", **changes)
    shape = jax.ShapeDtypeStruct((rows, 1, dim), np.float32, sharding=batch_sharding(make_mesh(num_devices)))
    scalar = jax.ShapeDtypeStruct((), np.float32)

    def total(audio, motion, scale, shift):
        labels = match_labels(loss.matching, np.zeros(rows, np.int32))
        return contrastive_terms(loss, audio, motion, labels, scale, shift, jax.random.key(0))[0]["match"]

    step = jax.jit(jax.grad(total, argnums=(0, 1, 2, 3)))
    compiled = step.lower(*[Gaussian(shape, shape)] * 2, scalar, scalar).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_memory_of_the_loss():
    """The loss needs a few `[b, b]` matrices but no `[b, b, d]`; devices share them, and blocks avoid them."""
    matrix = 4 * 512**2
    whole = temporary_bytes(1)
    assert whole < 6 * matrix
    assert temporary_bytes(8) < whole / 4
    assert temporary_bytes(1, chunk_rows=32) < whole / 6
