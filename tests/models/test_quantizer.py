import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.quantizer import EMAQuantizer, nearest_code, perplexity

SIZE, DIM = 5, 3


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


def test_nearest_code_equals_all_distances():
    latents = jax.random.normal(jax.random.key(0), (2, 9, DIM))
    codebook = jax.random.normal(jax.random.key(1), (SIZE, DIM))
    distance = np.linalg.norm(np.asarray(latents)[:, :, None] - np.asarray(codebook)[None, None], axis=-1)
    np.testing.assert_array_equal(nearest_code(latents, codebook), distance.argmin(-1))


@pytest.mark.parametrize("smoothing", ["standard", "published"])
def test_ema_follows_closed_form(smoothing):
    quantizer, variables, latents = initialised(ema_smoothing=smoothing, decay=0.9)
    output, updated = step(quantizer, variables, latents)
    old, new = variables["codebook"], updated["codebook"]
    one_hot = np.eye(SIZE)[np.asarray(output.indices).ravel()]
    rows = np.asarray(latents).reshape(8, DIM)
    count = 0.9 * np.asarray(old["ema_count"]) + 0.1 * one_hot.sum(0)
    scale = 8 if smoothing == "standard" else 2  # latents, or clips
    count = (count + 1e-5) / (scale + SIZE * 1e-5) * scale
    total = 0.9 * np.asarray(old["ema_sum"]) + 0.1 * one_hot.T @ rows
    np.testing.assert_allclose(new["ema_count"], count, rtol=1e-6)
    np.testing.assert_allclose(new["embedding"], total / count[:, None], rtol=1e-5)


def test_codes_are_those_of_before_the_update_and_evaluation_stands_still():
    quantizer, variables, latents = initialised()
    output, _ = step(quantizer, variables, latents)
    np.testing.assert_allclose(output.codes, variables["codebook"]["embedding"][output.indices], rtol=1e-6)
    _, unchanged = quantizer.apply(variables, latents, mutable=["codebook"])
    jax.tree.map(np.testing.assert_array_equal, unchanged["codebook"], variables["codebook"])


def test_gradient_is_straight_through():
    quantizer, variables, latents = initialised()
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


def test_first_batch_start_puts_codes_on_latents():
    quantizer, variables, latents = initialised(initialisation="first_batch")
    output, updated = step(quantizer, variables, latents)
    rows = np.asarray(latents).reshape(8, DIM)
    start = np.asarray(output.codes).reshape(8, DIM)
    assert all((np.abs(rows - code).max(-1) < 1e-6).any() for code in start)
    # Only the first update does so.
    moved, again = step(quantizer, {"codebook": updated["codebook"]}, latents + 10.0, seed=4)
    np.testing.assert_allclose(moved.codes, updated["codebook"]["embedding"][moved.indices], rtol=1e-5)
    assert int(again["codebook"]["updates"]) == 2


def test_dead_codes_are_revived_after_so_many_updates():
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


@pytest.mark.parametrize("revive_after", [0, 1])
def test_devices_move_the_codebook_alike_under_pmap(revive_after):
    fields = {"initialisation": "first_batch", "revive_after": revive_after}
    quantizer, variables, _ = initialised(**fields)
    latents = jax.random.normal(jax.random.key(7), (8, 4, DIM))
    _, whole = step(quantizer, variables, latents)
    sharded = EMAQuantizer(SIZE, DIM, axis_name="data", **fields)
    states = jax.pmap(lambda rows: step(sharded, variables, rows)[1], axis_name="data")(
        latents.reshape(4, 2, 4, DIM)
    )
    for device in range(4):
        jax.tree.map(
            lambda one, many, index=device: np.testing.assert_allclose(
                many[index], one, rtol=1e-5, atol=1e-6
            ),
            whole,
            states,
        )


def test_rejects_unknown_options_and_wrong_width():
    latents = jnp.zeros((1, 2, DIM))
    with pytest.raises(ValueError, match="ema_smoothing='none' is not one of"):
        EMAQuantizer(SIZE, DIM, ema_smoothing="none").init(jax.random.key(0), latents)
    with pytest.raises(ValueError, match="latents have 3 channels, the codebook 4"):
        EMAQuantizer(SIZE, 4).init(jax.random.key(0), latents)
