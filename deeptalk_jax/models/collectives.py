"""The only place where a model's statistics cross devices.

Under jit over a mesh, arrays are global and a plain sum already spans all devices (`axis_name=None`). Under pmap
every device sees its shard, and the named axis makes the same sums global.
"""

import jax

from deeptalk_jax.types import Array


def global_sum(x: Array, axis_name: str | None) -> Array:
    """Sum of `x` over the devices of `axis_name`; `x` itself where arrays are global already."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def global_rows(x: Array, axis_name: str | None) -> Array:
    """Rows `[b, ...]` of all devices as `[B, ...]`; `x` itself where arrays are global already."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, axis=0, tiled=True)
