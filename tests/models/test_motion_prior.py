import functools
from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.motion_prior import MotionPrior
from deeptalk_jax.models.temporal_conv import DoublingConv, Expander, Resampler, Squasher


@pytest.fixture(scope="module")
def prior():
    model = MotionPrior(
        dim=8, mlp_dim=12, decoder_mlp_dim=20, num_heads=4, codebook_size_top=6, codebook_size_bottom=7
    )
    motion = jax.random.normal(jax.random.key(0), (2, 12, 53))
    return model, jax.jit(model.init)(jax.random.key(1), motion), motion


def test_squasher_equals_numpy_convolution_of_replicated_edges():
    x = jax.random.normal(jax.random.key(0), (1, 6, 2))
    squasher = Squasher(3)
    variables = squasher.init(jax.random.key(1), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    padded = np.pad(np.asarray(x[0]), ((2, 2), (0, 0)), mode="edge")
    expected = np.stack([np.einsum("kc,kcd->d", padded[2 * i : 2 * i + 5], kernel) for i in range(3)])
    expected = np.where(expected > 0, expected, 0.2 * expected) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(squasher.apply(variables, x)[0], expected, rtol=1e-5, atol=1e-6)


def test_larger_squasher_halves_again_by_the_larger_of_two_frames():
    x = jax.random.normal(jax.random.key(0), (1, 8, 2))
    squasher = Squasher(3, factor=4)
    variables = squasher.init(jax.random.key(1), x)
    first = {
        collection: {name: tree[name] for name in ("conv", "norm") if name in tree}
        for collection, tree in variables.items()
    }
    halved = np.asarray(Squasher(3).apply(first, x)[0])
    kernel = np.asarray(variables["params"]["conv_1"]["kernel"])
    padded = np.pad(halved, ((2, 2), (0, 0)), mode="edge")
    expected = np.stack([np.einsum("kc,kcd->d", padded[i : i + 5], kernel) for i in range(4)])
    expected = np.where(expected > 0, expected, 0.2 * expected) / np.sqrt(1 + 1e-5)
    expected = np.maximum(expected[0::2], expected[1::2])
    np.testing.assert_allclose(squasher.apply(variables, x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [Fraction(3, 4), Fraction(4, 3)])
def test_resampler_interpolates_with_aligned_ends(rate):
    x = jax.random.uniform(jax.random.key(0), (2, 12, 3))
    resampler = Resampler(3, rate)
    variables = resampler.init(jax.random.key(1), x)
    passing = jnp.zeros((5, 3, 3)).at[2].set(jnp.eye(3))  # the convolution hands frames on
    variables["params"]["conv"]["kernel"] = passing
    positions = np.linspace(0, 11, int(12 * rate))
    expected = [[np.interp(positions, np.arange(12), x[b, :, c]) for c in range(3)] for b in range(2)]
    expected = np.swapaxes(expected, 1, 2) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(resampler.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_expander_equals_scattered_taps():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2))
    expander = Expander(4)
    variables = expander.init(jax.random.key(1), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    # torch's ConvTranspose1d(k5, stride 2, padding 2, output padding 1) scatters input i to outputs 2i-2..2i+2;
    # the stored kernel is its mirror image.
    scattered = np.zeros((6 + 4, 4))
    for position in range(3):
        for tap in range(5):
            scattered[2 * position + tap] += np.asarray(x[0, position]) @ kernel[4 - tap]
    expected = scattered[2:8]
    expected = np.where(expected > 0, expected, 0.2 * expected) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(expander.apply(variables, x)[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel_size", [4, 5])
def test_doubling_convolution_is_the_transposed_one(kernel_size):
    x = jax.random.normal(jax.random.key(0), (2, 7, 3))
    ours = DoublingConv(4, kernel_size)
    variables = ours.init(jax.random.key(1), x)
    theirs = nn.ConvTranspose(4, (kernel_size,), strides=(2,), padding=((2, kernel_size - 2),))
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-6)


def test_rates_and_sizes(prior):
    model, variables, motion = prior
    output = jax.jit(model.apply)(variables, motion)
    assert output.motion.shape == motion.shape
    assert output.top.codes.shape == (2, 3, 8)
    assert output.bottom.codes.shape == (2, 6, 16)
    assert int(output.top.indices.max()) < 6
    assert int(output.bottom.indices.max()) < 7


def test_condition_scale_weighs_the_top_codes_in_the_bottom_codebook(prior):
    model, variables, motion = prior
    other = jax.tree.map(jnp.copy, variables)
    other["codebook"]["quantizer_top"]["embedding"] *= -3.0
    encode = functools.partial(model.apply, method=MotionPrior.encode)
    deaf = functools.partial(model.clone(top_condition_scale=0.0).apply, method=MotionPrior.encode)

    def bottom_commitments(encode):
        encode = jax.jit(encode)
        return [float(encode(numbers, motion)[1].commitment) for numbers in (variables, other)]

    with_top, without_top = bottom_commitments(encode), bottom_commitments(deaf)
    assert abs(with_top[0] - with_top[1]) > 1e-4
    assert without_top[0] == without_top[1]
    assert without_top[0] < with_top[0]  # half of the latents are zero, near the uniform codes


def test_lookup_and_decoding_repeat_the_reconstruction(prior):
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


def test_padding_does_not_reach_valid_frames(prior):
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


def test_padding_at_other_rates(prior):
    """One bottom code for 4 frames and one top code for 16: every change of rate takes more than one step."""
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
def test_other_rates(prior, bottom_frames, top_frames):
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
def test_rejects_other_shapes(prior, shape):
    model, variables, _ = prior
    with pytest.raises(ValueError, match=r"motion must be \[b, t, 53\] with t a multiple of 4, got"):
        model.apply(variables, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ((2, 5), "frames_per_top_code=5 is no multiple of frames_per_bottom_code=2"),
        ((3, 6), "the frame rate changes by powers of two, not by 3"),
        ((4, 4), "the frame rate changes by powers of two, not by 1"),
    ],
)
def test_rejects_other_rates(prior, rates, message):
    model = prior[0].clone(frames_per_bottom_code=rates[0], frames_per_top_code=rates[1])
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 60, 53)))
