"""The Gram factor compared with explicit vertices: values, gradients, vertex weights, rank and memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.head import gram
from deeptalk_jax.head.actions import ACTION_INDEX
from deeptalk_jax.head.lbs import head_vertices, motion_vertices
from deeptalk_jax.head.load import load_head, save_head
from deeptalk_jax.head.model import HeadModel, HeadSurface
from deeptalk_jax.types import EXPRESSION_DIM
from tests.support.motion_features import motion_features

NUM_VERTICES = 37
WEIGHTINGS = {
    "all": np.ones(NUM_VERTICES),
    "weighted": np.linspace(0.0, 2.0, NUM_VERTICES),
    "lips": np.isin(np.arange(NUM_VERTICES), [3, 5, 30]),
    "eyes": np.isin(np.arange(NUM_VERTICES), np.arange(6, 22)),
    "rest": ~np.isin(np.arange(NUM_VERTICES), [3, 5, 30, *range(6, 22)]),
}


@pytest.fixture(scope="module")
def random_head():
    rng = np.random.default_rng(0)

    def rows_of_one(shape):
        weights = rng.random(shape)
        return weights / weights.sum(-1, keepdims=True)

    surface = HeadSurface(
        faces=np.array([[0, 1, 2]], np.int32),
        materials=np.zeros(NUM_VERTICES, np.uint8),
        albedo=np.ones((NUM_VERTICES, 3), np.float32),
        masks={"lips": np.array([3, 5, 30]), "eyes": np.arange(6, 22), "forehead": np.zeros(0, int)},
    )
    return HeadModel(
        template=0.1 * rng.standard_normal((NUM_VERTICES, 3)),
        expression_directions=0.01 * rng.standard_normal((NUM_VERTICES, 3, 50)),
        shape_directions=0.01 * rng.standard_normal((NUM_VERTICES, 3, 7)),
        pose_directions=0.01 * rng.standard_normal((36, NUM_VERTICES, 3)),
        joint_regressor=rows_of_one((5, NUM_VERTICES)),
        # Rows do not sum to exactly 1, as FLAME's float32 weights.
        skinning_weights=rows_of_one((NUM_VERTICES, 5)) * (1.0 + 1e-3 * rng.random((NUM_VERTICES, 1))),
        surface=surface,
    )


@pytest.fixture(scope="module")
def motions():
    rng = np.random.default_rng(1)
    return 0.3 * rng.standard_normal((2, 2, 4, 53))


def value_and_gradients(distance, motion, target):
    """Returns the position and velocity distances, and the gradients of a weighted sum of each."""

    def totals(motion):
        values = distance(motion, target)
        return [jnp.sum(jnp.cos(jnp.arange(v.size)).reshape(v.shape) * v) for v in values], values

    (_, pull_back, values) = jax.vjp(totals, motion, has_aux=True)
    return [*values, *pull_back([1.0, 0.0]), *pull_back([0.0, 1.0])]


@pytest.fixture(scope="module")
def explicit(random_head, motions):
    """Values and gradients computed from explicit vertices in float64, by weighting."""

    @jax.jit
    def outputs(head, motion, target, weights):
        def distance(motion, target):
            error = motion_vertices(head, motion) - motion_vertices(head, target)
            errors = (error, error[:, 1:] - error[:, :-1])
            return [jnp.einsum("btvc,v->bt", jnp.square(e), weights) for e in errors]

        return value_and_gradients(distance, motion, target)

    with jax.enable_x64(True):
        head = jax.tree.map(jnp.asarray, random_head)
        return {
            name: jax.device_get(outputs(head, *motions, weights / (3.0 * weights.sum())))
            for name, weights in WEIGHTINGS.items()
        }


def implicit(factor, motions):
    """Returns the output of `value_and_gradients` computed from the factor."""
    outputs = jax.jit(
        lambda motion, target: value_and_gradients(
            lambda m, t: (
                gram.squared_distance(factor, m, t),
                gram.squared_velocity_distance(factor, m, t),
            ),
            motion,
            target,
        )
    )
    return jax.device_get(outputs(*motions))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_float64_equals_explicit_vertices(random_head, motions, explicit, weighting):
    if weighting == "weighted":
        factor = gram.distance_factor(random_head, weights=WEIGHTINGS[weighting], dtype=np.float64)
    else:
        factor = gram.region_factors(random_head, [weighting], dtype=np.float64)[weighting]
    with jax.enable_x64(True):
        found = implicit(factor, motions)
    for actual, expected in zip(found, explicit[weighting], strict=True):
        assert actual.dtype == np.float64
        np.testing.assert_allclose(actual, expected, rtol=1e-10, atol=1e-11 * np.abs(expected).max())


@pytest.fixture(scope="module")
def synthetic_factors(synthetic_flame_head):
    """Factors of the whole head and of 100 of its vertices, each in float32 and float64."""
    regions = {"all": None, "few": np.arange(2000, 2100)}
    return {
        name: [
            gram.distance_factor(synthetic_flame_head, vertices, dtype=t) for t in (np.float32, np.float64)
        ]
        for name, vertices in regions.items()
    }


@pytest.mark.parametrize("region", ["all", "few"])
def test_float32_error_is_within_the_documented_bound(synthetic_factors, pseudo, region):
    """Covers distances from micrometres to centimetres, for positions and velocities, and the loss weight of 1e6."""
    frames = pseudo.pseudo_flame("gram", 5, 8)
    target = 2.0 * frames
    noise = pseudo.pseudo_normal("gram", target.shape) * np.array([1.0] * 50 + [0.1] * 3, np.float32)
    motion = target + np.float32(10.0) ** np.arange(-4.0, 1.0, dtype=np.float32)[:, None, None] * noise
    narrow, wide = synthetic_factors[region]
    found = implicit(narrow, (motion, target))
    with jax.enable_x64(True):
        exact = implicit(wide, (motion.astype(np.float64), target.astype(np.float64)))
    for actual, expected in zip(found[:2], exact[:2], strict=True):
        rms = np.sqrt(expected)
        assert rms.min() < 2e-6 and rms.max() > 5e-3
        assert (np.abs(np.sqrt(np.asarray(actual, np.float64)) - rms) < 2e-9 + 1e-6 * rms).all()
        visible = rms > 1e-4
        np.testing.assert_allclose(1e6 * actual[visible], 1e6 * expected[visible], rtol=5e-5)
    for actual, expected, squared in zip(found[2:], exact[2:], exact[:2], strict=True):
        error = np.abs(actual - expected).max(axis=(1, 2)) / np.abs(expected).max(axis=(1, 2))
        assert (error < 2.0 * (2e-9 / np.sqrt(squared).max(axis=1) + 1e-6)).all()


def test_rank_of_the_synthetic_head(synthetic_factors):
    # Each wave of the synthetic head displaces along one direction: 59 linear columns, and 3 rows of 50 + 9 + 3
    # products.
    assert synthetic_factors["all"][0].shape == (245, gram.FEATURE_DIM)


def test_float64_equals_explicit_vertices_of_whole_heads(
    synthetic_flame_head, synthetic_factors, head, pseudo
):
    eyes = head.masks["eyes"]
    cases = [
        (synthetic_flame_head, slice(None), synthetic_factors["all"][1]),
        (head, eyes, gram.distance_factor(head, eyes, dtype=np.float64)),
    ]
    with jax.enable_x64(True):
        motions = pseudo.pseudo_flame("heads", 2, 1)[:, 0].astype(np.float64)
        for model, vertices, factor in cases:
            model = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), model)
            error = np.subtract(*jax.jit(motion_vertices)(model, motions))[vertices]
            actual = jax.jit(gram.squared_distance)(factor, *motions)
            np.testing.assert_allclose(actual, np.mean(error**2), rtol=1e-10)


def test_loaded_heads_have_all_face_regions(synthetic_flame_arrays, head, tmp_path):
    np.savez(tmp_path / "flame.npz", **synthetic_flame_arrays)
    save_head(tmp_path / "saved.npz", head)
    for path in ("flame.npz", "saved.npz", "procedural"):
        regions = gram.head_regions(load_head(path if path == "procedural" else str(tmp_path / path)))
        for name in ("face", "lips", "eyes", "forehead"):
            assert 0 < len(regions[name]) < len(regions["rest"]) < len(regions["all"])
            assert not set(regions[name]) & set(regions["rest"])


def test_factor_times_feature_difference_is_the_distance(random_head, motions):
    factor = gram.distance_factor(random_head)
    motion, target = motions.astype(np.float32)
    difference = motion_features(motion) - motion_features(target)
    assert difference.shape == (2, 4, 599) == (*motion.shape[:2], factor.shape[1])
    expected = np.sum(np.square(difference @ factor.T), axis=-1)
    np.testing.assert_allclose(jax.jit(gram.squared_distance)(factor, motion, target), expected, rtol=1e-5)


def test_identity_can_be_written_into_the_template(random_head, motions):
    shape = np.linspace(-1.0, 1.0, 7)
    identity = random_head.replace(template=random_head.template + random_head.shape_directions @ shape)
    with jax.enable_x64(True):
        head = jax.tree.map(jnp.asarray, random_head)
        vertices = jax.jit(head_vertices)(
            head, motions[..., :EXPRESSION_DIM], motions[..., EXPRESSION_DIM:], shape=jnp.asarray(shape)
        )
        expected = jnp.mean(jnp.square(vertices[0] - vertices[1]), axis=(-1, -2))
        actual = jax.jit(gram.squared_distance)(gram.distance_factor(identity, dtype=np.float64), *motions)
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_gap_distance_equals_explicit_differences_of_vertices(random_head, motions):
    upper, lower, weights = np.array([3, 11, 30]), np.array([20, 4, 5]), np.array([1.0, 0.0, 2.5])
    with jax.enable_x64(True):
        factor = gram.distance_factor(random_head, upper, weights, relative_to=lower, dtype=np.float64)
        motion, target = (jnp.asarray(part, jnp.float64) for part in motions)
        gaps = [motion_vertices(random_head, part) for part in (motion, target)]
        gaps = [vertices[..., upper, :] - vertices[..., lower, :] for vertices in gaps]
        expected = jnp.einsum("...vx,v->...", jnp.square(gaps[0] - gaps[1]), weights) / (3 * weights.sum())
        found = gram.squared_distance(factor, motion, target)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_gap_of_the_lips_does_not_see_a_smile_but_an_open_mouth():
    head = load_head("procedural")
    factor = gram.gap_factor(head, "lips")
    still = np.zeros((1, 53), np.float32)
    cheek, jaw = still.copy(), still.copy()
    cheek[:, ACTION_INDEX["cheek_raise_left"]] = 1.0
    jaw[:, EXPRESSION_DIM] = 0.1
    closed, opened = (gram.squared_distance(factor, motion, still)[0] for motion in (cheek, jaw))
    assert closed < 1e-10 < 1e-7 < opened


def test_a_head_without_lip_points_has_no_gap(random_head):
    with pytest.raises(ValueError, match="has no point 'upper_lip_seam', which the gap of the lips needs"):
        gram.gap_factor(random_head, "lips")


def test_distance_does_not_allocate_vertices(synthetic_flame_head, synthetic_factors):
    frames, num_vertices = 32, synthetic_flame_head.num_vertices
    factor, _ = synthetic_factors["all"]
    target = np.zeros((frames, 53), np.float32)

    def by_factor(motion):
        return jnp.sum(gram.squared_distance(factor, motion, target))

    def by_vertices(motion):
        head = synthetic_flame_head
        return jnp.sum(jnp.square(motion_vertices(head, motion) - motion_vertices(head, target)))

    def temporary_bytes(loss):
        compiled = jax.jit(jax.value_and_grad(loss)).lower(target).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    vertex_bytes = 4 * frames * num_vertices * 3
    assert temporary_bytes(by_factor) < vertex_bytes < temporary_bytes(by_vertices)


def test_distance_of_a_motionless_region_is_zero(random_head, motions):
    directions = random_head.expression_directions.copy()
    directions[:3] = 0.0
    still = random_head.replace(
        expression_directions=directions,
        pose_directions=np.zeros_like(random_head.pose_directions),
        skinning_weights=np.eye(5)[np.zeros(NUM_VERTICES, int)],
    )
    factor = gram.distance_factor(still, np.arange(3))
    assert factor.shape == (0, gram.FEATURE_DIM)
    distance = jax.jit(gram.squared_distance)(factor, *motions.astype(np.float32))
    np.testing.assert_array_equal(distance, np.zeros((2, 4), np.float32))


@pytest.mark.parametrize(
    "vertices, weights, message",
    [
        (np.arange(3), np.ones(2), r"3 vertices with weights of shape \(2,\)"),
        (np.arange(0), None, r"0 vertices with weights of shape \(0,\)"),
        (np.array([4, 37]), None, r"vertex indices 4\.\.37; the head has 37 vertices"),
        (np.array([-1, 4]), None, r"vertex indices -1\.\.4; the head has 37 vertices"),
        (np.arange(2), np.array([1.0, -0.5]), r"not negative .* in \[-0\.5, 1\.0\]"),
        (np.arange(2), np.zeros(2), r"not all zero.* in \[0\.0, 0\.0\]"),
        (np.arange(2), np.array([1.0, np.nan]), r"finite.* in \[nan, nan\]"),
    ],
)
def test_invalid_vertices_and_weights_raise(random_head, vertices, weights, message):
    with pytest.raises(ValueError, match=message):
        gram.distance_factor(random_head, vertices, weights)


def test_unknown_region_raises(random_head):
    with pytest.raises(
        ValueError, match="head 'head' has no region 'forehead'; choose from all, lips, eyes, rest"
    ):
        gram.region_factors(random_head, ["lips", "forehead"])


def test_equal_arguments_share_a_read_only_factor(random_head):
    vertices, weights = np.arange(6), np.arange(1.0, 7.0)
    factor = gram.distance_factor(random_head, vertices, weights)
    assert gram.distance_factor(random_head, vertices.copy(), weights.copy()) is factor
    with pytest.raises(ValueError, match="read-only"):
        factor[:] = 0.0
    moved = random_head.replace(template=1.1 * random_head.template)
    others = (
        gram.distance_factor(random_head, vertices[::-1], weights),
        gram.distance_factor(random_head, vertices, weights + 1.0),
        gram.distance_factor(random_head, vertices, weights, dtype=np.float64),
        gram.distance_factor(moved, vertices, weights),
    )
    assert all(other.dtype != factor.dtype or not np.array_equal(other, factor) for other in others)
