"""The published files: which is which, and whether two of them agree."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.interop.torch_file import read_torch_file
from deeptalk_jax.interop.torch_places import State, strip_prefix


class _Kind(NamedTuple):
    file: str  # its published name
    anchor: str  # a tensor that tells it from the others


# In the order of asking: a later kind may be contained in an earlier one.
_KINDS = {
    "generator": _Kind("DEEPTalk.pth", "sequence_encoder.linear.weight"),
    "dee": _Kind("DEE.pt", "exp_encoder.exp_map.weight"),
    "prior": _Kind("TH-VQVAE.pth", "quantize_t.codebook.weight"),
    "fer": _Kind("FER.pth", "in_fc.weight"),
    "emotion2vec": _Kind("emotion2vec_base.pt", "modality_encoders.AUDIO.extra_tokens"),
    "wav2vec2": _Kind("wav2vec 2.0", "feature_projection.projection.weight"),
}
FLAGS = tuple(_KINDS)
# What fairseq keeps beside the weights in emotion2vec_base.pt.
_BESIDE = {
    "last_optimizer_state.*": "moments of the optimiser, for going on with the training",
    "optimizer_history.*": "record of the training",
    "extra_state.*": "place in the training data",
    "task_state.*": "place in the training data",
}


class Difference(NamedTuple):
    """How two sets of tensors differ.

    Attributes:
        name: the first tensor that differs.
        size: largest absolute difference of its numbers; infinite where shapes differ or one has it alone.
        num_tensors: how many differ.
    """

    name: str
    size: float
    num_tensors: int


def read_published(path: Path, flag: str) -> dict[str, np.ndarray]:
    """Reads a file that was given as one of the published ones.

    Args:
        path: the file; a dictionary around the state_dict (`{"model": ...}`) is looked through.
        flag: one of `FLAGS`.

    Returns:
        Tensor name -> array.

    Raises:
        UserError: the file cannot be read, is another one than the flag says, or holds tensors beside the
            state_dict.
    """
    state = read_torch_file(path)
    kind = _looks_like(state)
    if kind != flag:
        what = "none of the published files" if kind is None else f"a file like {_KINDS[kind].file}"
        advice = "" if kind is None else f"; give it as --{kind}"
        raise UserError(
            f"{what} (it holds tensors such as {next(iter(state))!r}), "
            f"expected one like {_KINDS[flag].file}{advice}"
        )
    anchor = _KINDS[flag].anchor
    prefix = next(name for name in state if _is(name, anchor)).removesuffix(anchor)
    for name in state:
        if not name.startswith(prefix) and not any(fnmatchcase(name, pattern) for pattern in _BESIDE):
            raise UserError(f"it holds {name!r} beside the weights in {prefix!r}")
    return strip_prefix(state, prefix)


def first_difference(one: State, other: State) -> Difference | None:
    """Compares tensors by name, in the order of `one`; None if they are equal."""
    found = []
    for name in (*one, *(name for name in other if name not in one)):
        if name not in one or name not in other or one[name].shape != other[name].shape:
            found.append((name, float("inf")))
        elif not np.array_equal(one[name], other[name]):
            gap = np.abs(one[name].astype(np.float64) - other[name].astype(np.float64))
            found.append((name, float(gap.max())))
    return Difference(*found[0], len(found)) if found else None


def _looks_like(state: Mapping[str, np.ndarray]) -> str | None:
    for kind, (_, anchor) in _KINDS.items():
        if any(_is(name, anchor) for name in state):
            return kind
    return None


def _is(name: str, anchor: str) -> bool:
    return name == anchor or name.endswith(f".{anchor}")
