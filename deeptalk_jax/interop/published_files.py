"""Reads the published checkpoint files, recognises which file is which, and compares files that repeat a part."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.interop.torch_file import read_torch_file
from deeptalk_jax.interop.torch_places import State, strip_prefix


class _Kind(NamedTuple):
    file: str  # published name of the file
    anchor: str  # name of a tensor that identifies the file


# Checked in this order, because files contain the tensors of some later kinds.
_KINDS = {
    "generator": _Kind("DEEPTalk.pth", "sequence_encoder.linear.weight"),
    "dee": _Kind("DEE.pt", "exp_encoder.exp_map.weight"),
    "prior": _Kind("TH-VQVAE.pth", "quantize_t.codebook.weight"),
    "fer": _Kind("FER.pth", "in_fc.weight"),
    "emotion2vec": _Kind("emotion2vec_base.pt", "modality_encoders.AUDIO.extra_tokens"),
    "wav2vec2": _Kind("wav2vec 2.0", "feature_projection.projection.weight"),
}
FLAGS = tuple(_KINDS)
# Tensors that fairseq stores next to the weights in emotion2vec_base.pt: name pattern -> purpose.
_OTHER_TENSORS = {
    "last_optimizer_state.*": "optimiser moments, for resuming the training",
    "optimizer_history.*": "record of the training",
    "extra_state.*": "position in the training data",
    "task_state.*": "position in the training data",
}


class Difference(NamedTuple):
    """The difference between two sets of tensors.

    Attributes:
        name: name of the first tensor that differs.
        size: largest absolute difference of its numbers; infinite if the shapes differ or one set lacks the tensor.
        num_tensors: number of tensors that differ.
    """

    name: str
    size: float
    num_tensors: int


def read_published(path: Path, flag: str) -> dict[str, np.ndarray]:
    """Reads a published checkpoint file and checks that it is the expected one.

    Args:
        path: the file. The state_dict may be nested in another dictionary, such as `{"model": ...}`.
        flag: name of the expected file, one of `FLAGS`.

    Returns:
        Tensor name -> array, without the names of the outer dictionaries.

    Raises:
        UserError: The file cannot be read, is not the expected one, or has tensors outside the state_dict.
    """
    state = read_torch_file(path)
    kind = _kind_of(state)
    if kind != flag:
        what = "none of the published files" if kind is None else f"a file like {_KINDS[kind].file}"
        advice = "" if kind is None else f"; pass it as --{kind}"
        raise UserError(
            f"this is {what} (it contains tensors such as {next(iter(state))!r}), "
            f"expected a file like {_KINDS[flag].file}{advice}"
        )
    anchor = _KINDS[flag].anchor
    prefix = next(name for name in state if _ends_with(name, anchor)).removesuffix(anchor)
    for name in state:
        if not name.startswith(prefix) and not any(fnmatchcase(name, pattern) for pattern in _OTHER_TENSORS):
            raise UserError(
                f"it contains the tensor {name!r} outside the weights in {prefix!r}; expected weights only"
            )
    return strip_prefix(state, prefix)


def first_difference(one: State, other: State) -> Difference | None:
    """Compares tensors by name, in the order of `one`. Returns None if all are equal."""
    found = []
    for name in (*one, *(name for name in other if name not in one)):
        if name not in one or name not in other or one[name].shape != other[name].shape:
            found.append((name, float("inf")))
        elif not np.array_equal(one[name], other[name]):
            gap = np.abs(one[name].astype(np.float64) - other[name].astype(np.float64))
            found.append((name, float(gap.max())))
    return Difference(*found[0], len(found)) if found else None


def _kind_of(state: Mapping[str, np.ndarray]) -> str | None:
    for kind, (_, anchor) in _KINDS.items():
        if any(_ends_with(name, anchor) for name in state):
            return kind
    return None


def _ends_with(name: str, anchor: str) -> bool:
    return name == anchor or name.endswith(f".{anchor}")
