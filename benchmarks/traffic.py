"""Memory traffic of a compiled program, estimated from its HLO text.

`benchmarks.pod` needs it for GPUs, where XLA's cost analysis is not available ahead of time. Every instruction reads
its operands and writes its result: fusions, library calls and copies access memory once. If a fusion uses only slices
of an operand, only the slices count. The body of a loop counts once, as in XLA's own analysis.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.collectives import array_bytes

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:body|condition|to_apply|calls|branch_computations)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)")
_NOTES = re.compile(r"\{[^}]*\}|/\*.*?\*/")  # layouts, and comments with the numbers of tuple entries
_WORKSPACE = re.compile(r", [su]8\[\d+\]\)$")  # workspace of a library call, listed after its results

# Instructions that only name data in memory and move no bytes.
_FREE = (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "iota",
    "partition-id",
    "after-all",
)
_CALLS = ("while", "call", "conditional", "async-start")
_SLICES = ("slice", "dynamic-slice", "gather")


class _Instruction(NamedTuple):
    """One line of HLO.

    Attributes:
        name: Name of the result.
        num_bytes: Bytes of the result.
        kind: Name of the operation, such as `fusion`.
        operands: Names of the operands.
        called: Names of the computations that the instruction calls.
        arguments: Text between the parentheses; for a parameter this is its number.
    """

    name: str
    num_bytes: int
    kind: str
    operands: list[str]
    called: list[str]
    arguments: str


def memory_traffic(hlo: str) -> int:
    """Estimates the bytes that one run of the program reads and writes on a device.

    Args:
        hlo: Text of the compiled program.

    Raises:
        ValueError: The text has no entry computation.
    """
    bodies, entry = {}, None
    for is_entry, name, instructions in _computations(hlo):
        bodies[name] = instructions
        entry = name if is_entry else entry
    if entry is None:
        raise ValueError("no ENTRY in the program; expected the text of a compiled program")
    return _bytes_of(entry, bodies)


def _computations(hlo: str) -> Iterator[tuple[bool, str, list[_Instruction]]]:
    """Yields each computation: whether it is the entry, its name and its instructions."""
    lines = iter(hlo.splitlines())
    for line in lines:
        if head := _COMPUTATION.match(line):
            found = map(_INSTRUCTION.match, iter(lambda: next(lines), "}"))
            yield bool(head[1]), head[2], [_parsed(*match.groups()) for match in found if match]


def _parsed(name: str, result: str, kind: str, rest: str) -> _Instruction:
    plain = _NOTES.sub("", result)
    num_bytes = sum(array_bytes(_WORKSPACE.sub(")", plain) if kind == "custom-call" else plain))
    arguments = rest.split(")")[0]
    called = [name for names in _CALLED.findall(rest) for name in _OPERAND.findall(names)]
    return _Instruction(name, num_bytes, kind, _OPERAND.findall(arguments), called, arguments)


def _bytes_of(computation: str, bodies: dict[str, list[_Instruction]]) -> int:
    """Sums the traffic of a computation and of those that it calls."""
    sizes, total = {}, 0
    for instruction in bodies[computation]:
        sizes[instruction.name] = instruction.num_bytes
        if instruction.kind in _CALLS:
            total += sum(_bytes_of(name, bodies) for name in instruction.called)
        elif instruction.kind not in _FREE and not instruction.kind.endswith("-done"):
            read = [sizes.get(operand, 0) for operand in instruction.operands]
            if instruction.kind == "fusion":
                sliced = _sliced(bodies[instruction.called[0]])
                read = [sliced.get(number, whole) for number, whole in enumerate(read)]
            elif instruction.kind in _SLICES:
                read[0] = instruction.num_bytes
            total += instruction.num_bytes + sum(read)
    return total


def _sliced(fused: list[_Instruction]) -> dict[int, int]:
    """Returns, by operand number, the bytes of the slices for operands of which a fusion uses only slices."""
    found = {}
    for parameter in fused:
        if parameter.kind == "parameter":
            users = [user for user in fused if parameter.name in user.operands]
            if users and all(user.kind in _SLICES and user.operands[0] == parameter.name for user in users):
                found[int(parameter.arguments)] = sum(user.num_bytes for user in users)
    return found
