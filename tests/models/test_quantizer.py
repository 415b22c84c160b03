"""Quantisers: updates by hand, gradients, initialisation, revival and equality over devices."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.quantizer import (
    EMAQuantizer,
    GradientQuantizer,
    kmeans_plus_plus,
    make_quantizer,
    nearest_code,
    perplexity,
    random_rows,
)
from deeptalk_jax.training.mesh import make_mesh
from deeptalk_jax.training.pmap_runner import spanning

SIZE, DIM = 5, 3
START = {"commitment_weight": 0.25, "initialisation": "uniform", "start_after": 0, "revive_after": 0}


def initialised(**fields):
    quantizer = EMAQuantizer(SIZE, DIM, **fields)
    latents = jax.random.normal(jax.random.key(0), (2, 4, DIM))
    variables = quantizer.init(jax.random.key(1), latents)
    state = dict(variables["codebook"], embedding=jax.random.normal(jax.random.key(2), (SIZE, DIM)))
    state["ema_sum"] = state["embedding"]
    return quantizer, {"codebook": state}, latents


def step(quantizer, variables, latents, seed=3):
    output, updated = quantizer.apply(
        variables, latents, train=True, mutable=["codebook"], rngs={"sample": jax.random.key(seed)}
    )
    return output, updated


def test_nearest_code_equals_a_search_over_all_distances():
    latents = jax.random.normal(jax.random.key(0), (2, 9, DIM))
    codebook = jax.random.normal(jax.random.key(1), (SIZE, DIM))
    distance = np.linalg.norm(np.asarray(latents)[:, :, None] - np.asarray(codebook)[None, None], axis=-1)
    np.testing.assert_array_equal(nearest_code(latents, codebook), distance.argmin(-1))


def test_indices_under_bf16_are_those_of_float32():
    coarse = jax.random.normal(jax.random.key(0), (4, 50, DIM)).astype(jnp.bfloat16)
    # The codes are so close to each other that their bfloat16 distances are equal.
    codebook = 1.0 + 1e-3 * jax.random.normal(jax.random.key(1), (SIZE, DIM))
    indices = nearest_code(coarse, codebook)
    np.testing.assert_array_equal(indices, nearest_code(coarse.astype(jnp.float32), codebook))
    assert len(np.unique(indices)) > 1


def test_no_array_of_tokens_times_codes_times_channels():
    """Checks search, k-means++ and update, forward and backward."""
    tokens, size, dim = (2, 20), 30, 17
    quantizer = EMAQuantizer(size, dim, initialisation="kmeans++", revive_after=1)
    latents = jnp.zeros((*tokens, dim))
    variables = quantizer.init(jax.random.key(0), latents)

    def loss(latents):
        output, updated = step(quantizer, variables, latents)
        return output.commitment + jnp.sum(output.codes), updated

    sizes = list(array_sizes(jax.make_jaxpr(jax.grad(loss, has_aux=True))(latents).jaxpr))
    assert max(sizes) >= math.prod(tokens) * size, "the scores of tokens and codes were not found"
    assert max(sizes) < math.prod(tokens) * size * dim


def array_sizes(jaxpr):
    """Yields the number of elements of every array in a program and in the programs inside it."""
    for equation in jaxpr.eqns:
        yield from (math.prod(variable.aval.shape) for variable in equation.outvars)
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from array_sizes(inner)


@pytest.mark.parametrize("smoothing", ["standard", "published", "none"])
def test_ema_update_equals_its_closed_form(smoothing):
    quantizer, variables, latents = initialised(ema_smoothing=smoothing, decay=0.9)
    output, updated = step(quantizer, variables, latents)
    old, new = variables["codebook"], updated["codebook"]
    one_hot = np.eye(SIZE)[np.asarray(output.indices).ravel()]
    rows = np.asarray(latents).reshape(8, DIM)
    count = 0.9 * np.asarray(old["ema_count"]) + 0.1 * one_hot.sum(0)
    scale = 8 if smoothing == "standard" else 2  # number of latents, or of clips
    if smoothing != "none":
        count = (count + 1e-5) / (scale + SIZE * 1e-5) * scale
    total = 0.9 * np.asarray(old["ema_sum"]) + 0.1 * one_hot.T @ rows
    np.testing.assert_allclose(new["ema_count"], count, rtol=1e-6)
    np.testing.assert_allclose(new["embedding"], total / count[:, None], rtol=1e-5)


def test_an_unused_code_without_smoothing_keeps_its_value():
    quantizer, variables, latents = initialised(ema_smoothing="none")
    state = variables["codebook"]
    far = state["embedding"].at[0].set(1e3)
    faded = {"embedding": far, "ema_sum": far.at[0].set(0.0), "ema_count": state["ema_count"].at[0].set(0.0)}
    _, updated = step(quantizer, {"codebook": state | faded}, latents)
    np.testing.assert_array_equal(updated["codebook"]["embedding"][0], far[0])


def test_quantisation_precedes_the_update_and_evaluation_does_not_update():
    quantizer, variables, latents = initialised()
    output, _ = step(quantizer, variables, latents)
    np.testing.assert_allclose(output.codes, variables["codebook"]["embedding"][output.indices], rtol=1e-6)
    _, unchanged = quantizer.apply(variables, latents, mutable=["codebook"])
    jax.tree.map(np.testing.assert_array_equal, unchanged["codebook"], variables["codebook"])


@pytest.mark.parametrize("kind", [EMAQuantizer, GradientQuantizer])
def test_gradient_is_straight_through(kind):
    latents = jax.random.normal(jax.random.key(0), (2, 4, DIM))
    quantizer = kind(SIZE, DIM)
    variables = quantizer.init(jax.random.key(1), latents)
    weights = jax.random.normal(jax.random.key(5), latents.shape)
    gradient = jax.grad(lambda x: jnp.sum(quantizer.apply(variables, x).codes * weights))(latents)
    np.testing.assert_array_equal(gradient, weights)


def test_commitment_by_hand():
    quantizer, variables, latents = initialised(commitment_weight=0.25)

    def commitment(x):
        return quantizer.apply(variables, x).commitment

    codes = variables["codebook"]["embedding"][quantizer.apply(variables, latents).indices]
    np.testing.assert_allclose(commitment(latents), 0.25 * np.mean((codes - latents) ** 2), rtol=1e-6)
    np.testing.assert_allclose(
        jax.grad(commitment)(latents), 0.5 * (latents - codes) / latents.size, rtol=1e-5
    )


def test_first_batch_initialisation_sets_codes_to_latents_once():
    quantizer, variables, latents = initialised(initialisation="first_batch")
    output, updated = step(quantizer, variables, latents)
    rows = np.asarray(latents).reshape(8, DIM)
    start = np.asarray(output.codes).reshape(8, DIM)
    assert all((np.abs(rows - code).max(-1) < 1e-6).any() for code in start)
    # The second update does not initialise again.
    moved, again = step(quantizer, {"codebook": updated["codebook"]}, latents + 10.0, seed=4)
    np.testing.assert_allclose(moved.codes, updated["codebook"]["embedding"][moved.indices], rtol=1e-5)
    assert int(again["codebook"]["updates"]) == 2


def test_dead_codes_are_revived_after_the_given_number_of_updates():
    quantizer, variables, latents = initialised(revive_after=2)
    far = variables["codebook"]["embedding"].at[0].set(1e3)
    variables = {"codebook": {**variables["codebook"], "embedding": far, "ema_sum": far}}
    _, once = step(quantizer, variables, latents)
    assert float(jnp.abs(once["codebook"]["embedding"][0]).max()) > 100
    _, twice = step(quantizer, {"codebook": once["codebook"]}, latents)
    rows = np.asarray(latents).reshape(8, DIM)
    revived = np.asarray(twice["codebook"]["embedding"][0])
    assert np.abs(rows - revived).max(-1).min() < 1e-6
    assert int(twice["codebook"]["idle_updates"][0]) == 0


def test_perplexity_counts_effective_codes():
    np.testing.assert_allclose(perplexity(jnp.array([3.0, 3.0, 3.0, 0.0])), 3.0, rtol=1e-6)
    np.testing.assert_allclose(perplexity(jnp.array([0.0, 7.0])), 1.0, rtol=1e-6)


def two_steps(quantizer, variables, latents):
    """Returns the state after an initialisation from the batch and two updates, each with a revival of dead codes."""
    _, variables = step(quantizer, variables, latents, seed=3)
    return step(quantizer, variables, latents + 2.0, seed=4)[1]


@pytest.mark.parametrize("initialisation", ["first_batch", "kmeans++"])
def test_eight_devices_update_the_codebook_as_one_device_does(initialisation):
    fields = {"initialisation": initialisation, "revive_after": 1}
    quantizer, variables, _ = initialised(**fields)
    latents = jax.random.normal(jax.random.key(7), (8, 4, DIM))
    alone = jax.jit(lambda rows: two_steps(quantizer, variables, rows))(latents)
    assert int(alone["codebook"]["updates"]) == 2

    mesh = make_mesh(8)
    rows, everywhere = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    under_jit = jax.jit(
        lambda rows: two_steps(quantizer, variables, rows), in_shardings=rows, out_shardings=everywhere
    )(latents)

    def on_each_device(rows):
        with spanning("data"):
            return two_steps(quantizer, variables, rows)

    under_pmap = jax.pmap(on_each_device, axis_name="data")(latents[:, None])
    for device in range(8):
        states = under_jit, jax.tree.map(lambda many, index=device: many[index], under_pmap)
        for state in states:
            jax.tree.map(
                lambda one, many: np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-6), alone, state
            )


def test_gradient_of_the_codebook_by_hand():
    quantizer = GradientQuantizer(SIZE, DIM)
    latents = jax.random.normal(jax.random.key(0), (2, 4, DIM))
    params = {"embedding": jax.random.normal(jax.random.key(2), (SIZE, DIM))}

    def losses(params, latents):
        output = quantizer.apply({"params": params}, latents, train=True)
        return output.codebook_loss, (output, jnp.sum(output.codes**2) + output.commitment)

    gradient, (output, _) = jax.grad(losses, has_aux=True)(params, latents)
    expected = np.zeros((SIZE, DIM))
    for index, latent in zip(np.ravel(output.indices), np.reshape(latents, (8, DIM)), strict=True):
        expected[index] += 2.0 * (params["embedding"][index] - latent) / latents.size
    np.testing.assert_allclose(gradient["embedding"], expected, rtol=1e-5, atol=1e-7)
    # The codebook loss has no gradient for latents, and the other losses have none for codes.
    assert not jax.grad(lambda rows: losses(params, rows)[0])(latents).any()
    assert not jax.grad(lambda params: losses(params, latents)[1][1])(params)["embedding"].any()


def test_latents_are_not_quantised_before_the_codebook_is_initialised():
    quantizer, variables, latents = initialised(initialisation="first_batch", start_after=2)

    def outcome(latents, variables):
        output, updated = step(quantizer, variables, latents)
        return jnp.sum(output.codes**2), (output, updated)

    run = jax.jit(jax.value_and_grad(outcome, has_aux=True))
    for update in range(4):
        (_, (output, variables)), gradient = run(latents, variables)
        quantised = update >= 2
        assert bool(output.commitment > 0) == quantised
        assert bool(jnp.all(output.codes == latents)) != quantised
        # The gradient is straight-through before and after the initialisation.
        np.testing.assert_allclose(gradient, 2.0 * output.codes, rtol=1e-6)
        if update == 2:
            offsets = jnp.reshape(output.codes, (-1, 1, DIM)) - jnp.reshape(latents, (1, -1, DIM))
            assert float(jnp.abs(offsets).max(-1).min(1).max()) < 1e-6  # every code is a latent
    # Evaluation quantises even before the initialisation.
    fresh = initialised(initialisation="first_batch", start_after=2)[1]
    assert quantizer.apply(fresh, latents).commitment > 0


KEYS = jax.random.split(jax.random.key(0), 4000)


def drawn(start, rows, num_codes):
    """Returns `[4000, k, d]` codes, drawn with 4000 keys."""
    return np.asarray(jax.jit(jax.vmap(lambda key: start(jnp.asarray(rows), num_codes, key)))(KEYS))


def test_second_code_of_kmeans_plus_plus_follows_squared_distances():
    codes = drawn(kmeans_plus_plus, [[0.0], [1.0], [3.0]], 2)[..., 0]
    first, second = codes.T
    np.testing.assert_allclose([np.mean(first == row) for row in (0, 1, 3)], 1 / 3, atol=0.03)
    # Squared distances to the other rows: 1 and 9 from row 0, 1 and 4 from row 1, 9 and 4 from row 3.
    for row, far, share in ((0, 3, 9 / 10), (1, 3, 4 / 5), (3, 0, 9 / 13)):
        assert np.mean(second[first == row] == far) == pytest.approx(share, abs=0.04)


def test_third_code_of_kmeans_plus_plus_follows_the_nearest_of_two_codes():
    codes = drawn(kmeans_plus_plus, [[0.0], [1.0], [3.0], [7.0]], 3)[..., 0]
    begun = (codes[:, 0] == 0) & (codes[:, 1] == 7)
    # Code 0 is nearest to both remaining rows, at squared distances 1 and 9.
    assert begun.sum() > 500
    assert np.mean(codes[begun, 2] == 3) == pytest.approx(9 / 10, abs=0.04)


def test_kmeans_plus_plus_finds_distant_rows_and_allows_repeated_rows():
    # 30 copies of one row and a single other row, which a uniform draw would seldom choose.
    rows = np.zeros((31, 2), np.float32)
    rows[17] = 5.0
    assert (np.sort(drawn(kmeans_plus_plus, rows, 2)[..., 0], axis=1) == [0, 5]).all()
    # With as many codes as different rows, every row becomes a code. Further codes repeat rows.
    rows = np.float32([[0, 1], [2, 0], [2, 0], [0, 1], [9, 9]])
    assert (np.sort(drawn(kmeans_plus_plus, rows, 3)[..., 0], axis=1) == [0, 2, 9]).all()
    assert set(np.unique(drawn(kmeans_plus_plus, rows, 5)[..., 1])) == {0, 1, 9}


def test_random_rows_are_uniform():
    codes = drawn(random_rows, [[0.0], [1.0], [3.0]], 2)
    np.testing.assert_allclose([np.mean(codes == row) for row in (0, 1, 3)], 1 / 3, atol=0.02)


def test_invalid_options_and_wrong_widths_are_rejected():
    latents = jnp.zeros((1, 2, DIM))
    with pytest.raises(ConfigError, match="ema_smoothing='batch' is not one of"):
        EMAQuantizer(SIZE, DIM, ema_smoothing="batch").init(jax.random.key(0), latents)
    with pytest.raises(ValueError, match="latents have 3 channels, expected code_dim=4"):
        EMAQuantizer(SIZE, 4).init(jax.random.key(0), latents)
    with pytest.raises(ConfigError, match="codebook_update='sgd' is not one of"):
        make_quantizer("sgd", SIZE, DIM, **START)
    with pytest.raises(ConfigError, match=r"starts uniform, at once, .* got initialisation='kmeans"):
        make_quantizer("gradient", SIZE, DIM, **START | {"initialisation": "kmeans++"})
    with pytest.raises(ConfigError, match="start_after=3 needs a start from a batch"):
        EMAQuantizer(SIZE, DIM, start_after=3).init(jax.random.key(0), jnp.zeros((1, 2, DIM)))
