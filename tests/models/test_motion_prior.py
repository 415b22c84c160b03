"""TH-VQVAE: rates, decoding, padding and gradients. `test_temporal_conv.py` tests its layers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.errors import ConfigError
from deeptalk_jax.models.motion_prior import MotionPrior


@pytest.fixture(scope="module")
def prior():
    model = MotionPrior(
        dim=8, mlp_dim=12, decoder_mlp_dim=20, num_heads=4, codebook_size_top=6, codebook_size_bottom=7
    )
    motion = jax.random.normal(jax.random.key(0), (2, 12, 53))
    return model, jax.jit(model.init)(jax.random.key(1), motion), motion


def test_output_shapes_at_the_published_rates(prior):
    model, variables, motion = prior
    output = jax.jit(model.apply)(variables, motion)
    assert output.motion.shape == motion.shape
    assert output.top.codes.shape == (2, 3, 8)
    assert output.bottom.codes.shape == (2, 6, 16)
    assert int(output.top.indices.max()) < 6
    assert int(output.bottom.indices.max()) < 7


def test_top_condition_scale_sets_the_effect_of_top_codes_on_bottom_codes(prior):
    model, variables, motion = prior
    other = jax.tree.map(jnp.copy, variables)
    other["codebook"]["quantizer_top"]["embedding"] *= -3.0
    encode = functools.partial(model.apply, method=MotionPrior.encode)
    unconditioned = functools.partial(model.clone(top_condition_scale=0.0).apply, method=MotionPrior.encode)

    def bottom_commitments(encode):
        encode = jax.jit(encode)
        return [float(encode(numbers, motion)[1].commitment) for numbers in (variables, other)]

    with_top, without_top = bottom_commitments(encode), bottom_commitments(unconditioned)
    assert abs(with_top[0] - with_top[1]) > 1e-4
    assert without_top[0] == without_top[1]
    assert without_top[0] < with_top[0]  # half of every latent is zero, as the initial codes nearly are


def test_decoding_of_looked_up_codes_equals_the_reconstruction(prior):
    model, variables, motion = prior
    output = jax.jit(model.apply)(variables, motion)

    def decode(module):
        return module.decode(
            module.lookup_top(output.top.indices), module.lookup_bottom(output.bottom.indices)
        )

    decoded = jax.jit(lambda: model.apply(variables, method=decode))()
    np.testing.assert_allclose(decoded, output.motion, rtol=1e-4, atol=1e-5)
    one_hot = jax.nn.one_hot(output.top.indices, 6)
    mixed = model.apply(variables, one_hot, method=MotionPrior.mix_top)
    looked_up = model.apply(variables, output.top.indices, method=MotionPrior.lookup_top)
    np.testing.assert_allclose(mixed, looked_up, rtol=1e-6)


def test_padding_does_not_affect_valid_frames(prior):
    model, variables, _ = prior
    top = jax.random.normal(jax.random.key(2), (2, 5, 8))
    bottom = jax.random.normal(jax.random.key(3), (2, 10, 16))
    mask = jnp.arange(5)[None] < jnp.array([[3], [5]])
    top, bottom = top.at[0, 3:].set(9.0), bottom.at[0, 6:].set(9.0)
    decode = jax.jit(functools.partial(model.apply, method=MotionPrior.decode))
    padded, alone = decode(variables, top, bottom, mask=mask), decode(variables, top[:1, :3], bottom[:1, :6])
    np.testing.assert_allclose(padded[:1, :12], alone, rtol=1e-4, atol=1e-5)
    decode_top = jax.jit(functools.partial(model.apply, method=MotionPrior.decode_top))
    padded, alone = decode_top(variables, top, mask=mask), decode_top(variables, top[:1, :3])
    np.testing.assert_allclose(padded[:1, :6], alone, rtol=1e-4, atol=1e-5)


def test_padding_does_not_affect_valid_frames_at_other_rates(prior):
    """With 4 frames per bottom code and 16 per top code, every change of rate takes more than one step."""
    model = prior[0].clone(frames_per_bottom_code=4, frames_per_top_code=16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 53)))
    numbers = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: numbers.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
    decode = jax.jit(functools.partial(model.apply, method=MotionPrior.decode))

    top, bottom = numbers.normal(size=(2, 3, 8)), numbers.normal(size=(2, 12, 16))
    mask = np.array([[True, True, False], [True, True, True]])
    clean = decode(variables, top, bottom, mask=mask)
    assert clean.shape == (2, 48, 53)
    top[0, 2:], bottom[0, 8:] = 9.0, 9.0
    noisy = decode(variables, top, bottom, mask=mask)
    np.testing.assert_array_equal(noisy[0, :32], clean[0, :32])


@pytest.mark.parametrize(("bottom_frames", "top_frames"), [(2, 8), (4, 8)])
def test_output_shapes_at_other_rates(prior, bottom_frames, top_frames):
    model, _, _ = prior
    model = model.clone(frames_per_bottom_code=bottom_frames, frames_per_top_code=top_frames)
    output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.zeros((2, 24, 53)))
    assert output.motion.shape == (2, 24, 53)
    assert output.top.codes.shape == (2, 24 // top_frames, 8)
    assert output.bottom.codes.shape == (2, 24 // bottom_frames, 16)


def test_reconstruction_trains_both_encoders_through_the_codes(prior):
    model, variables, motion = prior

    def loss(params):
        return jnp.sum(jnp.square(model.apply({**variables, "params": params}, motion).motion))

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for part in ("encoder_top", "encoder_bottom", "decoder_top", "decoder_bottom"):
        assert float(jnp.abs(gradients[part]["linear"]["kernel"]).max()) > 0, part
    assert float(jnp.abs(gradients["upsample_top"]["kernel"]).max()) > 0


@pytest.mark.parametrize("shape", [(1, 10, 53), (1, 8, 56)])
def test_wrong_shapes_are_rejected(prior, shape):
    model, variables, _ = prior
    with pytest.raises(ValueError, match=r"motion must be \[b, t, 53\] with t a multiple of 4, got"):
        model.apply(variables, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((2, 5), "frames_per_top_code=5: expected a multiple of frames_per_bottom_code=2"),
        ((3, 6), "frame rates change by powers of two, got a factor of 3"),
        ((4, 4), "frame rates change by powers of two, got a factor of 1"),
    ],
)
def test_wrong_rates_are_rejected(prior, rates, message):
    model = prior[0].clone(frames_per_bottom_code=rates[0], frames_per_top_code=rates[1])
    with pytest.raises(ConfigError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 60, 53)))
