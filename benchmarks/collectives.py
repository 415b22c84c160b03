"""Collectives of a compiled program, read from its HLO text, and their predicted time. Used by `benchmarks.pod`.

The prediction is that of a ring or torus (Thakur et al., IJHPCA 2005). For n devices, where b is the number of bytes of
the larger of input and output on one device:

    all-reduce                               2 (n - 1) / n * b / bandwidth
    all-gather, reduce-scatter, all-to-all     (n - 1) / n * b / bandwidth
    collective-permute                                       b / bandwidth

With s slices, n becomes the n / s devices of a slice, and the exchange between slices over the network is added. Each
device takes part with b / (n / s) bytes: 2 (s - 1) / s * b / (n / s) / network bandwidth for an all-reduce, half of it
for the others.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from deeptalk_jax.training.chips import Chip

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_OPERATION = re.compile(rf"= (\S.*?) ({'|'.join(_KINDS)})(-start)?\((.*)$", re.MULTILINE)
_ARRAY = re.compile(r"(pred|[a-z]+[0-9]+(?:e[0-9]m[0-9]\w*)?)\[([0-9,]*)\]")
# Programs for GPUs write replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}.
_NAMED_GROUPS = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")
_GROUPS = re.compile(r"replica_groups=(?:\[(\d+),(\d+)\]|\{\{([0-9,]+)\})")


class Collective(NamedTuple):
    """A collective operation of a program.

    Attributes:
        kind: Name of the operation in HLO, such as `all-reduce`.
        num_bytes: Bytes of the larger of input and output, on one device.
        group_size: Number of devices that exchange data with one another.
    """

    kind: str
    num_bytes: int
    group_size: int


def find_collectives(hlo: str, num_devices: int) -> list[Collective]:
    """Returns all collectives of a compiled program; those in the body of a loop count once.

    Args:
        hlo: Text of the compiled program.
        num_devices: Group size of collectives that name no groups.
    """
    found = []
    for result, kind, start, rest in _OPERATION.findall(hlo):
        sizes = array_bytes(result)
        if start and len(sizes) > 1 and kind != "all-reduce":
            sizes = sizes[len(sizes) // 2 :] if kind != "collective-permute" else sizes[:1]
        group_size = _group_size(rest) or num_devices
        num_bytes = sum(sizes) * (group_size if kind == "reduce-scatter" else 1)
        found.append(Collective(kind, num_bytes, group_size))
    return found


def _group_size(attributes: str) -> int | None:
    if named := _NAMED_GROUPS.search(attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", named[2]))
    groups = _GROUPS.search(attributes)
    if groups is None:
        return None
    return int(groups[2]) if groups[2] else len(groups[3].split(","))


def total_seconds(collectives: Sequence[Collective], chip: Chip, num_slices: int = 1) -> float:
    """Predicts the time of all collectives, executed one after the other, in seconds.

    Raises:
        ValueError: A bandwidth that is needed is not known for the chip.
    """
    return math.fsum(_seconds(collective, chip, num_slices) for collective in collectives)


def _seconds(collective: Collective, chip: Chip, num_slices: int) -> float:
    kind, num_bytes, n = collective
    if chip.link_bytes_per_s is None or (num_slices > 1 and chip.network_bytes_per_s is None):
        raise ValueError("the bandwidth between these devices is unknown; expected it in training/chips.py")
    if kind == "collective-permute":
        return num_bytes / chip.link_bytes_per_s
    passes = 2 if kind == "all-reduce" else 1
    per_slice = max(n // num_slices, 1)
    seconds = passes * (per_slice - 1) / per_slice * num_bytes / chip.link_bytes_per_s
    if num_slices > 1:
        share = num_bytes / per_slice
        seconds += passes * (num_slices - 1) / num_slices * share / chip.network_bytes_per_s
    return seconds


def array_bytes(shapes: str) -> list[int]:
    """Returns the bytes of every array in the text of an HLO type."""
    return [
        math.prod(int(length) for length in dims.split(",") if length) * _item_bytes(kind)
        for kind, dims in _ARRAY.findall(shapes)
    ]


def _item_bytes(kind: str) -> int:
    bits = re.match(r"[a-z]+(\d+)", kind)
    return max(int(bits[1]) // 8, 1) if bits else 1
