"""Places: the variables of a Flax module that a tensor of a PyTorch checkpoint fills, and the change of layout.

A map from tensor names to places is data, which `fill` applies. No tensor is dropped silently: every tensor of the
checkpoint has a place or is on a list of unused tensors with a reason, and every variable of the module is filled. The
module works on numpy arrays and does not need PyTorch.
"""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from deeptalk_jax.errors import UserError

Path = tuple[str, ...]
State = Mapping[str, np.ndarray]
Shapes = Mapping[Path, tuple[int, ...]]
PyTree = Any


class Place(NamedTuple):
    """The destination of a tensor.

    Attributes:
        paths: paths of the variables that the tensor fills. A joint query, key and value projection fills three. A
            tensor that is only compared with a computed value fills none.
        convert: function that converts the tensor to one array per path; raises ValueError if the tensor is invalid.
            Attention heads are split afterwards, by reshaping to the shape of the variable.
    """

    paths: tuple[Path, ...]
    convert: Callable[[np.ndarray], list[np.ndarray]]


Places = dict[str, Place]


# Functions that convert the layout of one tensor.


def as_is(tensor: np.ndarray) -> list[np.ndarray]:
    """Keeps the axes."""
    return [tensor]


def reversed_axes(tensor: np.ndarray) -> list[np.ndarray]:
    """Reverses the axes: `[out, in]` -> `[in, out]` (linear), `[out, in, k]` -> `[k, in, out]` (convolution)."""
    return [tensor.T]


def joint_projection(tensor: np.ndarray) -> list[np.ndarray]:
    """Splits `[3 out, in]` into query, key and value, each `[in, out]`; a joint bias `[3 out]` is split likewise."""
    return [part.T for part in np.split(tensor, 3, axis=0)]


def flat(tensor: np.ndarray) -> list[np.ndarray]:
    """Flattens a tensor with additional axes of size 1 to one axis."""
    return [tensor.reshape(-1)]


def without_batch(tensor: np.ndarray) -> list[np.ndarray]:
    """Removes the leading axis: `[1, ...]` -> `[...]`."""
    if tensor.shape[:1] != (1,):
        raise ValueError("expected a first axis of size 1")
    return [tensor[0]]


def scalar(tensor: np.ndarray) -> list[np.ndarray]:
    """Removes all axes: `[1]` -> `[]`."""
    return [tensor.reshape(())]


def transposed_convolution(tensor: np.ndarray) -> list[np.ndarray]:
    """Converts `[in, out, k]` to `[k, in, out]` with reversed taps.

    PyTorch defines a transposed convolution as a scatter; as a convolution of the dilated input, its taps are reversed.
    """
    if tensor.ndim != 3:
        raise ValueError("expected three axes")
    return [tensor.transpose(2, 0, 1)[::-1]]


# Places of common layers. `torch_name` is the name of the PyTorch layer, `flax_path` the path of the Flax module.


def linear(torch_name: str, *flax_path: str) -> Places:
    """Returns the places of a linear layer or a convolution."""
    return {
        f"{torch_name}.weight": Place(((*flax_path, "kernel"),), reversed_axes),
        f"{torch_name}.bias": Place(((*flax_path, "bias"),), as_is),
    }


def norm(torch_name: str, *flax_path: str) -> Places:
    """Returns the places of gain and bias of a normalisation layer."""
    return {
        f"{torch_name}.weight": Place(((*flax_path, "scale"),), as_is),
        f"{torch_name}.bias": Place(((*flax_path, "bias"),), as_is),
    }


def batch_norm(torch_name: str, *flax_path: str) -> Places:
    """Returns the places of a batch normalisation; `flax_path` does not contain the collections."""
    statistics = ("batch_stats", *flax_path)
    return {
        **norm(torch_name, "params", *flax_path),
        f"{torch_name}.running_mean": Place(((*statistics, "mean"),), as_is),
        f"{torch_name}.running_var": Place(((*statistics, "variance"),), as_is),
    }


def attention_input(weight: str, bias: str, *flax_path: str) -> Places:
    """Returns the places of a joint projection to queries, keys and values."""
    parts = ("query", "key", "value")
    return {
        weight: Place(tuple((*flax_path, part, "kernel") for part in parts), joint_projection),
        bias: Place(tuple((*flax_path, part, "bias") for part in parts), joint_projection),
    }


def transformer_layer(torch_name: str, *flax_path: str) -> Places:
    """Returns the places of a `torch.nn.TransformerEncoderLayer` in `models.transformer.TransformerLayer`."""
    attention = f"{torch_name}.self_attn"
    return {
        **attention_input(
            f"{attention}.in_proj_weight", f"{attention}.in_proj_bias", *flax_path, "attention"
        ),
        **linear(f"{attention}.out_proj", *flax_path, "attention", "out"),
        **linear(f"{torch_name}.linear1", *flax_path, "mlp_in"),
        **linear(f"{torch_name}.linear2", *flax_path, "mlp_out"),
        **norm(f"{torch_name}.norm1", *flax_path, "attention_norm"),
        **norm(f"{torch_name}.norm2", *flax_path, "mlp_norm"),
    }


def transformer(torch_name: str, num_layers: int, *flax_path: str) -> Places:
    """Returns the places of a `torch.nn.TransformerEncoder` in `models.transformer.TransformerEncoder`."""
    places: Places = {}
    for index in range(num_layers):
        places |= transformer_layer(f"{torch_name}.layers.{index}", *flax_path, f"layer_{index}")
    return places


def nested(places: Places, torch_name: str, *flax_path: str) -> Places:
    """Prefixes the names and paths of places, for a module inside a larger one; `torch_name` ends with a dot."""
    return {
        f"{torch_name}{name}": Place(tuple((*flax_path, *path) for path in place.paths), place.convert)
        for name, place in places.items()
    }


# Functions that apply places to a checkpoint.


def shapes_of(variables: PyTree) -> dict[Path, tuple[int, ...]]:
    """Returns the shape of every leaf by path."""
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(variables).items()}


def strip_prefix(state: State, prefix: str) -> dict[str, np.ndarray]:
    """Returns the tensors with names that begin with `prefix`, and removes the prefix.

    Raises:
        UserError: No tensor has this prefix.
    """
    stripped = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not stripped:
        raise UserError(f"no tensor of the checkpoint has a name that begins with {prefix!r}")
    return stripped


def fill(
    state: State,
    places: Places,
    unused: Mapping[str, str],
    shapes: Shapes,
    *,
    prefix: str = "",
    constants: Mapping[Path, np.ndarray] | None = None,
) -> PyTree:
    """Converts the tensors of a checkpoint to variables.

    Args:
        state: tensor name -> array; `prefix` is already removed from the names.
        places: tensor name -> place.
        unused: pattern of names of tensors without a place -> the reason.
        shapes: shape of every variable of the module.
        prefix: prefix that was removed from the names; used in error messages.
        constants: values of variables that no tensor fills.

    Returns:
        Nested dictionary of float32 numpy arrays, and the constants.

    Raises:
        UserError: A tensor is missing, left over, not finite, or has the wrong shape or type; the message names it.
    """
    for name, place in places.items():
        if name not in state:
            use = (
                f"which {_dotted(place.paths[0])} needs"
                if place.paths
                else "which the published file contains"
            )
            raise UserError(f"the checkpoint has no tensor {prefix + name!r}, {use}")
    for name in state:
        if name not in places and not any(fnmatchcase(name, pattern) for pattern in unused):
            raise UserError(f"the checkpoint contains {prefix + name!r}, which has no place in this model")
    filled: dict[Path, np.ndarray] = dict(constants or {})
    for name, place in places.items():
        tensor = _float32(state[name], prefix + name)
        for path, array in zip(place.paths, _converted(tensor, place, prefix + name), strict=True):
            filled[path] = _fitted(array, path, shapes[path], prefix + name, tensor.shape)
    if set(shapes) != set(filled):
        # The places do not match the module, which is a bug of this project and not an error of the file.
        raise AssertionError(f"places and module differ: {sorted(map(_dotted, set(shapes) ^ set(filled)))}")
    return unflatten_dict(filled)


def _float32(tensor: np.ndarray, name: str) -> np.ndarray:
    if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype.name != "bfloat16":
        raise UserError(f"tensor {name!r} has type {tensor.dtype}; expected a float type")
    tensor = tensor.astype(np.float32, copy=False)
    if not np.isfinite(tensor).all():
        raise UserError(f"tensor {name!r} contains numbers that are not finite; the file is damaged")
    return tensor


def _converted(tensor: np.ndarray, place: Place, name: str) -> list[np.ndarray]:
    try:
        return place.convert(tensor)
    except (ValueError, IndexError) as error:
        raise UserError(f"tensor {name!r} of shape {tensor.shape} does not fit: {error}") from error


def _fitted(
    array: np.ndarray, path: Path, shape: tuple[int, ...], name: str, tensor_shape: tuple[int, ...]
) -> np.ndarray:
    """Splits the heads of attention projections; all other arrays must already have the right shape."""
    split_heads = len(path) > 2 and path[-3] == "attention" and array.size == np.prod(shape)
    plain = _without_heads(path, shape) if split_heads else shape
    if array.shape != plain:
        raise UserError(
            f"tensor {name!r} has shape {tuple(tensor_shape)}, which does not fit {_dotted(path)} of shape {shape}"
        )
    return np.ascontiguousarray(array.reshape(shape)).reshape(shape)


def _without_heads(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of an attention weight with the axes heads and head size merged."""
    if path[-1] == "bias":
        return (int(np.prod(shape)),)
    if path[-2] == "out":
        return (shape[0] * shape[1], shape[2])
    return (shape[0], shape[1] * shape[2])


def _dotted(path: Path) -> str:
    return ".".join(path)
