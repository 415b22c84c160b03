"""The only place where values cross devices, or depend on which rows of the batch a device holds.

Under jit over a mesh arrays are global: a plain sum spans all devices already, and everything here passes its input
through. Under pmap every device sees its own rows; inside `spanning(axis)` the same functions make sums, rows and
random draws those of the global batch, so that one `loss_fn` serves both. What a compiler would spread over all devices
though every row stands for itself is kept to the rows of each device by `rows_apart`, inside `over_mesh(mesh)`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

import einops
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int

from deeptalk_jax.types import Array

PyTree = Any

_axis: ContextVar[str | None] = ContextVar("pmap_axis", default=None)
_mesh: ContextVar[Mesh | None] = ContextVar("mesh", default=None)


@contextmanager
def _set(variable: ContextVar, value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def spanning(axis_name: str) -> AbstractContextManager[None]:
    """While a function is traced under `jax.pmap(..., axis_name=axis_name)`: its batch is that of all devices."""
    return _set(_axis, axis_name)


def over_mesh(mesh: Mesh) -> AbstractContextManager[None]:
    """While a function is traced under `jax.jit` whose batch is split over all axes of the mesh."""
    return _set(_mesh, mesh)


def rows_apart(function: Callable[..., Array]) -> Callable[..., Array]:
    """A function of rows `[b, ...]` that takes each by itself, done by every device for its own.

    As one program over a mesh, the end of a loop would wait for all devices: a sum over them in every round. A grouped
    convolution would gather the rows of all devices on each, but for TPUs.

    Args:
        function: rows, and arrays that are the same for all rows, to new rows.
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
    """What a function of rows `[b, ...]` makes of each of several batches, in one call, which compiles it once.

    Rows with one number lie next to each other, on the device that holds them. `jax.vmap` puts one batch behind the
    other where it meets a convolution, and every device then gets all rows of all others.
    """
    rows = jax.tree.map(lambda *parts: einops.rearrange(list(parts), "m b ... -> (b m) ..."), *batches)
    found = jax.tree.map(
        lambda x: einops.rearrange(x, "(b m) ... -> m b ...", m=len(batches)), function(rows)
    )
    return [jax.tree.map(lambda x, i=i: x[i], found) for i in range(len(batches))]


def global_sum(x: Array) -> Array:
    """Sum of `x` over the devices."""
    axis = _axis.get()
    return x if axis is None else jax.lax.psum(x, axis)


def global_mean(x: Array) -> Array:
    """Mean of `x` over all its entries and the devices, which hold as many each."""
    axis = _axis.get()
    mean = jnp.mean(x)
    return mean if axis is None else jax.lax.pmean(mean, axis)


def global_rows(x: Array) -> Array:
    """Rows `[b, ...]` of all devices as `[B, ...]`."""
    axis = _axis.get()
    return x if axis is None else jax.lax.all_gather(x, axis, axis=0, tiled=True)


def mean_gradients(gradients: PyTree) -> PyTree:
    """Gradients of a loss that is the same on all devices.

    The transpose of a sum over devices is that sum again: of n devices each counts its own rows n times, so that the
    mean over devices is the gradient.
    """
    axis = _axis.get()
    return gradients if axis is None else jax.lax.pmean(gradients, axis)


def local_rows(x: Array) -> Array:
    """This device's rows `[b, ...]` of `[B, ...]`, which every device holds."""
    axis = _axis.get()
    if axis is None:
        return x
    rows = x.shape[0] // jax.lax.axis_size(axis)
    return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis) * rows, rows)


def row_numbers(num_rows: int) -> Int[Array, " b"]:
    """Places of this device's rows in the global batch."""
    return local_rows(jnp.arange(_global_size(num_rows)))


def draw_rows(draw: Callable[[tuple[int, ...]], Array], shape: tuple[int, ...]) -> Array:
    """Random numbers for this device's rows: those that the global batch would draw at their places.

    Args:
        draw: shape to random numbers, such as `partial(jax.random.normal, key)`.
        shape: of this device's rows, `(b, ...)`.
    """
    return local_rows(draw((_global_size(shape[0]), *shape[1:])))


def _global_size(num_rows: int) -> int:
    axis = _axis.get()
    return num_rows if axis is None else num_rows * jax.lax.axis_size(axis)
