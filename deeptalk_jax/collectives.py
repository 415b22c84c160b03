"""Operations that span the rows of all devices: sums, means, gathered rows, random draws.

Models and losses call these functions instead of `jnp.sum` or `jax.random` wherever the result depends on the whole
batch. Under `jit` over a mesh arrays are global, so the bodies below are plain array code. A runner that gives every
device only its own rows replaces them while it traces the step (`replaced_by`), so the same loss serves both.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import einops
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int

from deeptalk_jax.types import Array

PyTree = Any

_replacement: ContextVar[Any] = ContextVar("replacement", default=None)
_mesh: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextmanager
def replaced_by(implementation: Any) -> Iterator[None]:
    """Calls the methods of an object instead of the functions of the same name that are marked as replaceable."""
    token = _replacement.set(implementation)
    try:
        yield
    finally:
        _replacement.reset(token)


def _replaceable(function: Callable) -> Callable:
    @functools.wraps(function)
    def call(*arguments):
        implementation = _replacement.get()
        chosen = function if implementation is None else getattr(implementation, function.__name__)
        return chosen(*arguments)

    return call


@_replaceable
def global_sum(x: Array) -> Array:
    """Sums `x`, a sum over the rows of one device, over all devices."""
    return x


@_replaceable
def global_mean(x: Array) -> Array:
    """Returns the mean over all entries of `x` on all devices, which hold equally many."""
    return jnp.mean(x)


@_replaceable
def global_rows(x: Array) -> Array:
    """Returns the rows of all devices, `[B, ...]`, from those of one, `[b, ...]`."""
    return x


@_replaceable
def local_rows(x: Array) -> Array:
    """Returns the rows of this device, `[b, ...]`, from those of all devices, `[B, ...]`."""
    return x


@_replaceable
def row_numbers(num_rows: int) -> Int[Array, " b"]:
    """Returns the positions of this device's rows in the global batch."""
    return jnp.arange(num_rows)


@_replaceable
def draw_rows(draw: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...]) -> Array:
    """Draws random numbers that do not depend on the number of devices.

    Args:
        draw: maps a shape to random numbers, such as `partial(jax.random.normal, key)`.
        shape: shape for the rows of this device, `(b, ...)`.

    Returns:
        This device's rows of what `draw` returns for the global batch.
    """
    return draw(shape)


@_replaceable
def mean_gradients(gradients: PyTree) -> PyTree:
    """Returns the gradients of the global loss from those that this device has computed."""
    return gradients


@contextmanager
def over_mesh(mesh: Mesh) -> Iterator[None]:
    """Tells `rows_apart` that the batch is split over all axes of a mesh, while a function is traced under `jit`."""
    token = _mesh.set(mesh)
    try:
        yield
    finally:
        _mesh.reset(token)


def rows_apart(function: Callable[..., Array]) -> Callable[..., Array]:
    """Makes every device compute a row-wise function on its own rows only, inside `over_mesh`.

    Without it the compiler joins devices that need not wait for each other: a loop ends with a sum over all devices in
    every iteration, and a grouped convolution gathers the rows of all devices on each one, except on TPUs.

    Args:
        function: maps rows `[b, ...]`, and arrays that all rows share, to new rows `[b, ...]`; rows must not
            influence each other.
    """
    mesh = _mesh.get()
    if mesh is None:
        return function
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()

    def apart(rows, *shared):
        if rows.shape[0] % mesh.size:
            return function(rows, *shared)
        specs = (split, *[whole] * len(shared))
        return jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(
            rows, *shared
        )

    return apart


def side_by_side(function: Callable[[PyTree], PyTree], batches: Sequence[PyTree]) -> list[PyTree]:
    """Applies a row-wise function to several batches in one call, so that it is compiled once.

    Row i of every batch is placed next to row i of the others, on the device that holds it. `jax.vmap` would
    concatenate the batches for a convolution, which moves the rows of all devices to each one.

    Args:
        function: maps a pytree of rows `[b, ...]` to a pytree of rows.
        batches: pytrees of equal shapes.

    Returns:
        The result for each batch.
    """
    rows = jax.tree.map(lambda *parts: einops.rearrange(list(parts), "m b ... -> (b m) ..."), *batches)
    found = jax.tree.map(
        lambda x: einops.rearrange(x, "(b m) ... -> m b ...", m=len(batches)), function(rows)
    )
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(batches))]
