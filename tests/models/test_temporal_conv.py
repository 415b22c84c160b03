"""Changes of frame rate against NumPy and Flax."""

from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models.temporal_conv import DoublingConv, Expander, Resampler, Squasher


def test_squasher_equals_a_numpy_convolution_with_replicated_edges():
    x = jax.random.normal(jax.random.key(0), (1, 6, 2))
    squasher = Squasher(3)
    variables = squasher.init(jax.random.key(1), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    padded = np.pad(np.asarray(x[0]), ((2, 2), (0, 0)), mode="edge")
    expected = np.stack([np.einsum("kc,kcd->d", padded[2 * i : 2 * i + 5], kernel) for i in range(3)])
    expected = np.where(expected > 0, expected, 0.2 * expected) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(squasher.apply(variables, x)[0], expected, rtol=1e-5, atol=1e-6)


def test_squasher_by_4_takes_the_maximum_of_pairs_of_frames():
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
    passing = jnp.zeros((5, 3, 3)).at[2].set(jnp.eye(3))  # the convolution becomes the identity
    variables["params"]["conv"]["kernel"] = passing
    positions = np.linspace(0, 11, int(12 * rate))
    expected = [[np.interp(positions, np.arange(12), x[b, :, c]) for c in range(3)] for b in range(2)]
    expected = np.swapaxes(expected, 1, 2) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(resampler.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_expander_equals_torch_transposed_convolution_in_numpy():
    x = jax.random.normal(jax.random.key(0), (1, 3, 2))
    expander = Expander(4)
    variables = expander.init(jax.random.key(1), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    # torch's ConvTranspose1d (5 taps, stride 2, padding 2, output padding 1) adds input i to outputs 2i-2 to 2i+2. The
    # kernel stored here is mirrored.
    scattered = np.zeros((6 + 4, 4))
    for position in range(3):
        for tap in range(5):
            scattered[2 * position + tap] += np.asarray(x[0, position]) @ kernel[4 - tap]
    expected = scattered[2:8]
    expected = np.where(expected > 0, expected, 0.2 * expected) / np.sqrt(1 + 1e-5)
    np.testing.assert_allclose(expander.apply(variables, x)[0], expected, rtol=1e-5, atol=1e-6)


def test_doubling_conv_has_the_parameters_and_values_of_a_transposed_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 7, 3))
    ours = DoublingConv(4, 5)
    variables = ours.init(jax.random.key(1), x)
    variables["params"]["bias"] += 0.5
    theirs = nn.ConvTranspose(4, (5,), strides=(2,), padding=((2, 3),))
    np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-6)
