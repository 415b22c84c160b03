"""Places: which variable of a Flax module takes which tensor of a PyTorch checkpoint, and in what layout.

A map from tensor names to places is data; `fill` applies it. Nothing passes in silence: every tensor of the
checkpoint has a place or stands on a list of tensors known to have none, each with its reason, and every variable
of the module is filled. Works on numpy arrays; PyTorch is not needed.
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
    """Where a tensor goes.

    Attributes:
        paths: the variables that it fills: one, three for a joint query, key and value projection, none for a
            tensor that is only held against what is computed here.
        convert: turns the tensor into one array per path; may raise ValueError if the tensor makes no sense.
            The heads of an attention projection are split afterwards, by reshaping to the variable's shape.
    """

    paths: tuple[Path, ...]
    convert: Callable[[np.ndarray], list[np.ndarray]]


Places = dict[str, Place]


# Layouts of single tensors.


def as_is(tensor: np.ndarray) -> list[np.ndarray]:
    """The same axes on both sides."""
    return [tensor]


def reversed_axes(tensor: np.ndarray) -> list[np.ndarray]:
    """`[out, in]` -> `[in, out]` for linear layers, `[out, in, k]` -> `[k, in, out]` for convolutions."""
    return [tensor.T]


def joint_projection(tensor: np.ndarray) -> list[np.ndarray]:
    """`[3 out, in]` -> query, key and value, `[in, out]` each; the same for their joint bias."""
    return [part.T for part in np.split(tensor, 3, axis=0)]


def flat(tensor: np.ndarray) -> list[np.ndarray]:
    """One axis: for tensors with axes of size 1 around."""
    return [tensor.reshape(-1)]


def without_batch(tensor: np.ndarray) -> list[np.ndarray]:
    """`[1, ...]` -> `[...]`."""
    if tensor.shape[:1] != (1,):
        raise ValueError("the first axis should have size 1")
    return [tensor[0]]


def scalar(tensor: np.ndarray) -> list[np.ndarray]:
    """`[1]` -> `[]`."""
    return [tensor.reshape(())]


def transposed_convolution(tensor: np.ndarray) -> list[np.ndarray]:
    """`[in, out, k]` -> `[k, in, out]` with the taps reversed: torch scatters, a convolution gathers."""
    if tensor.ndim != 3:
        raise ValueError("three axes are expected")
    return [tensor.transpose(2, 0, 1)[::-1]]


# Places of common layers.


def linear(theirs: str, *ours: str) -> Places:
    """A linear layer or a convolution."""
    return {
        f"{theirs}.weight": Place(((*ours, "kernel"),), reversed_axes),
        f"{theirs}.bias": Place(((*ours, "bias"),), as_is),
    }


def norm(theirs: str, *ours: str) -> Places:
    """Gain and bias of any norm."""
    return {
        f"{theirs}.weight": Place(((*ours, "scale"),), as_is),
        f"{theirs}.bias": Place(((*ours, "bias"),), as_is),
    }


def attention_input(weight: str, bias: str, *ours: str) -> Places:
    """Joint projection to queries, keys and values."""
    parts = ("query", "key", "value")
    return {
        weight: Place(tuple((*ours, part, "kernel") for part in parts), joint_projection),
        bias: Place(tuple((*ours, part, "bias") for part in parts), joint_projection),
    }


def transformer_layer(theirs: str, *ours: str) -> Places:
    """A `torch.nn.TransformerEncoderLayer` in `models.transformer.TransformerLayer`."""
    attention = f"{theirs}.self_attn"
    return {
        **attention_input(f"{attention}.in_proj_weight", f"{attention}.in_proj_bias", *ours, "attention"),
        **linear(f"{attention}.out_proj", *ours, "attention", "out"),
        **linear(f"{theirs}.linear1", *ours, "mlp_in"),
        **linear(f"{theirs}.linear2", *ours, "mlp_out"),
        **norm(f"{theirs}.norm1", *ours, "attention_norm"),
        **norm(f"{theirs}.norm2", *ours, "mlp_norm"),
    }


def transformer(theirs: str, num_layers: int, *ours: str) -> Places:
    """A `torch.nn.TransformerEncoder` in `models.transformer.TransformerEncoder`."""
    places: Places = {}
    for index in range(num_layers):
        places |= transformer_layer(f"{theirs}.layers.{index}", *ours, f"layer_{index}")
    return places


def nested(places: Places, theirs: str, *ours: str) -> Places:
    """The places of a module that is part of a larger one on both sides."""
    return {
        f"{theirs}{name}": Place(tuple((*ours, *path) for path in place.paths), place.convert)
        for name, place in places.items()
    }


# Application.


def shapes_of(variables: PyTree) -> dict[Path, tuple[int, ...]]:
    """Shape of every leaf by path."""
    return {path: tuple(leaf.shape) for path, leaf in flatten_dict(variables).items()}


def strip_prefix(state: State, prefix: str) -> dict[str, np.ndarray]:
    """The tensors whose names begin with `prefix`, without it.

    Raises:
        UserError: there is none.
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
    """Variables from a checkpoint.

    Args:
        state: tensor name -> array, without `prefix`.
        places: tensor name -> place.
        unused: pattern of tensor names that have no place -> the reason.
        shapes: shape of every variable of the module.
        prefix: what was taken off the names; for messages.
        constants: variables that no tensor of the checkpoint fills.

    Returns:
        Nested dictionary of numpy arrays, floats as float32.

    Raises:
        UserError: a tensor is missing, left over, of the wrong shape or type, or not finite; the message names it.
    """
    for name, place in places.items():
        if name not in state:
            use = f"which {_dotted(place.paths[0])} needs" if place.paths else "which should be there"
            raise UserError(f"the checkpoint has no tensor {prefix + name!r}, {use}")
    for name in state:
        if name not in places and not any(fnmatchcase(name, pattern) for pattern in unused):
            raise UserError(f"the checkpoint holds {prefix + name!r}, which has no place in this model")
    filled: dict[Path, np.ndarray] = dict(constants or {})
    for name, place in places.items():
        tensor = _float32(state[name], prefix + name)
        for path, array in zip(place.paths, _converted(tensor, place, prefix + name), strict=True):
            filled[path] = _fitted(array, path, shapes[path], prefix + name, tensor.shape)
    if set(shapes) != set(filled):
        # The tables and the modules disagree: a mistake of ours, not of the file.
        raise AssertionError(f"no tensor is meant for {sorted(map(_dotted, set(shapes) ^ set(filled)))}")
    return unflatten_dict(filled)


def _float32(tensor: np.ndarray, name: str) -> np.ndarray:
    if not np.issubdtype(tensor.dtype, np.floating) and tensor.dtype.name != "bfloat16":
        raise UserError(f"tensor {name!r} has type {tensor.dtype}, floats were expected")
    tensor = tensor.astype(np.float32, copy=False)
    if not np.isfinite(tensor).all():
        raise UserError(f"tensor {name!r} holds numbers that are not finite")
    return tensor


def _converted(tensor: np.ndarray, place: Place, name: str) -> list[np.ndarray]:
    try:
        return place.convert(tensor)
    except (ValueError, IndexError) as error:
        raise UserError(f"tensor {name!r} of shape {tensor.shape} does not fit: {error}") from error


def _fitted(
    array: np.ndarray, path: Path, shape: tuple[int, ...], name: str, their_shape: tuple[int, ...]
) -> np.ndarray:
    """Splits the heads of attention projections; anything else must have the right shape already."""
    split_heads = len(path) > 2 and path[-3] == "attention" and array.size == np.prod(shape)
    plain = _without_heads(path, shape) if split_heads else shape
    if array.shape != plain:
        raise UserError(
            f"tensor {name!r} has shape {tuple(their_shape)}, which does not fit {_dotted(path)} of shape {shape}"
        )
    return np.ascontiguousarray(array.reshape(shape)).reshape(shape)


def _without_heads(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an attention weight when the axes (heads, head size) are one."""
    if path[-1] == "bias":
        return (int(np.prod(shape)),)
    if path[-2] == "out":
        return (shape[0] * shape[1], shape[2])
    return (shape[0], shape[1] * shape[2])


def _dotted(path: Path) -> str:
    return ".".join(path)
