"""Every function of `cpu_forms` equals the library function that it replaces, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeptalk_jax.models import cpu_forms

HEADS, LENGTH = 3, 5


def assert_same_values_and_gradients(ours, theirs, *arguments):
    for function in (
        lambda f: f,
        lambda f: jax.grad(lambda *x: jnp.sum(jnp.sin(f(*x))), range(len(arguments))),
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
            jax.jit(function(ours))(*arguments),
            jax.jit(function(theirs))(*arguments),
        )


def test_gelu_equals_jax():
    x = jnp.linspace(-6.0, 6.0, 101)
    assert_same_values_and_gradients(cpu_forms.gelu, lambda x: jax.nn.gelu(x, approximate=False), x)


@pytest.mark.parametrize("kernel_size", [4, 5])
def test_doubling_convolution_equals_the_transposed_convolution(kernel_size):
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 7, 3), (kernel_size, 3, 4)))

    def transposed(x, kernel):
        return jax.lax.conv_transpose(
            x, kernel, (2,), [(2, kernel_size - 2)], dimension_numbers=("NWC", "WIO", "NWC")
        )

    assert_same_values_and_gradients(cpu_forms.doubling_conv, transposed, x, kernel)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_attention_head_by_head_equals_jax(monkeypatch, with_bias, with_mask):
    monkeypatch.setattr(cpu_forms, "_MANY_SCORES", 0)
    rng = np.random.default_rng(2)
    query, key, value = rng.standard_normal((3, 2, LENGTH, HEADS, 4)).astype(np.float32)
    bias = rng.standard_normal((HEADS, LENGTH, LENGTH)).astype(np.float32) if with_bias else None
    mask = np.arange(LENGTH)[None] < np.array([[LENGTH], [2]]) if with_mask else None

    def ours(query, key, value):
        return cpu_forms.attention(query, key, value, bias, mask)

    def theirs(query, key, value):
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            bias=None if bias is None else bias[None],
            mask=None if mask is None else mask[:, None, None],
        )

    assert "scan" in str(jax.make_jaxpr(ours)(query, key, value)), "the heads are not computed one by one"
    assert_same_values_and_gradients(ours, theirs, query, key, value)
