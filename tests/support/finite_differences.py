"""Comparison of gradients with finite differences.

It compiles once, unlike `jax.test_util.check_grads`.
"""

import jax
import jax.numpy as jnp
import numpy as np


def check_gradients(function, *arguments, step=1e-2, rtol=1e-2):
    """Checks the derivative of a random combination of the outputs along a direction near the gradient.

    Args:
        function: function from arrays to an array.
        *arguments: point at which the gradient is checked.
        step: step of the central difference, as a multiple of the direction.
        rtol: relative tolerance.
    """
    rng = np.random.default_rng(0)
    arguments = [np.asarray(argument, np.float32) for argument in arguments]
    weights = rng.standard_normal(jax.eval_shape(function, *arguments).shape).astype(np.float32)

    @jax.jit
    def value_and_gradients(*arguments):
        return jax.value_and_grad(lambda arguments: jnp.sum(weights * function(*arguments)))(arguments)

    _, gradients = value_and_gradients(*arguments)
    size = np.sqrt(np.mean([np.mean(np.square(gradient)) for gradient in gradients]))
    directions = [np.float32(g / size + rng.standard_normal(g.shape)) for g in gradients]
    ahead, behind = (
        float(value_and_gradients(*(x + h * d for x, d in zip(arguments, directions, strict=True)))[0])
        for h in (step, -step)
    )
    along = sum(np.vdot(g, d) for g, d in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(along, (ahead - behind) / (2 * step), rtol=rtol)
