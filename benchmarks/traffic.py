"""What a compiled program reads and writes, read from its HLO, for compilers that do not say.

Every instruction reads its operands and writes its result: fusions, library calls and copies go through memory once;
of what a fusion only takes slices of, it reads these. As in XLA's own analysis the body of a loop counts once.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.collectives import array_bytes

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:body|condition|to_apply|calls|branch_computations)=\{?(%[\w.\-]+(?:, %[\w.\-]+)*)")
_NOTES = re.compile(r"\{[^}]*\}|/\*.*?\*/")  # layouts, numbers of tuple entries
_WORKSPACE = re.compile(r", [su]8\[\d+\]\)$")  # of a library call, behind its results

# Names for what is in memory already.
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
    """One line: its name, bytes of its result, kind, operands, and the computations that it calls."""

    name: str
    num_bytes: int
    kind: str
    operands: list[str]
    called: list[str]
    arguments: str


def memory_traffic(hlo: str) -> int:
    """Bytes that a run of the program reads and writes, on a device.

    Args:
        hlo: text of the compiled program.

    Raises:
        ValueError: a text without an entry.
    """
    bodies, entry = {}, None
    for is_entry, name, instructions in _computations(hlo):
        bodies[name] = instructions
        entry = name if is_entry else entry
    if entry is None:
        raise ValueError("there is no ENTRY in the program")
    return _bytes_of(entry, bodies)


def _computations(hlo: str) -> Iterator[tuple[bool, str, list[_Instruction]]]:
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
    """Of the operands of a fusion, by number, that it only takes slices of: bytes of these."""
    found = {}
    for parameter in fused:
        if parameter.kind == "parameter":
            users = [user for user in fused if parameter.name in user.operands]
            if users and all(user.kind in _SLICES and user.operands[0] == parameter.name for user in users):
                found[int(parameter.arguments)] = sum(user.num_bytes for user in users)
    return found
