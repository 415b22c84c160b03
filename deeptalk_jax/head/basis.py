"""`Basis`: which movements the 53 numbers of a motion frame stand for.

Coefficients have a meaning only together with the expression directions of one head: the third one funnels the lips of
the embedded head and is a principal component of FLAME. Heads, data sets, model directories and motion files record
their basis, so that combining two of them that do not fit is an error and not a nonsensical face.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from deeptalk_jax.errors import UserError

# Reference of the embedded head, which `head.load.load_head` builds; all others are paths of files.
PROCEDURAL = "procedural"

# Names of arrays in `.npz` files, by field of `Basis`.
BASIS_ARRAYS = {"name": "basis", "version": "basis_version", "sha256": "basis_sha256"}
_FLAME_YEARS = ("2020", "2023")
_SHOWN_DIGITS = 8


@dataclass(frozen=True)
class Basis:
    """Identity of expression and jaw directions.

    Attributes:
        name: `embedded`; `flame2020` or `flame2023`; `flame` for a FLAME file whose name does not tell the year; or
            `custom` for other heads.
        version: version of the directions of the embedded head; empty for heads that come from files.
        sha256: hash of the directions, see `directions_digest`; empty if no head file was given.
    """

    name: str
    version: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if not isinstance(value, str):
                raise TypeError(f"the {field} of a basis is {value!r}, expected text")
        if not self.name:
            raise ValueError("the name of a basis is empty")

    def __str__(self) -> str:
        named = f"{self.name} {self.version}".strip()
        if self.name == EMBEDDED_NAME or not self.sha256:
            return named
        return f"{named} (sha256 {self.sha256[:_SHOWN_DIGITS]})"

    def record(self) -> dict[str, str]:
        """Returns the fields by name, for JSON files."""
        return asdict(self)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the fields as arrays of text without axes, named by `BASIS_ARRAYS`."""
        return {BASIS_ARRAYS[field]: np.array(value) for field, value in asdict(self).items()}

    def agrees_with(self, other: "Basis") -> bool:
        """Whether coefficients of one basis mean the same in the other, as far as the records tell.

        The embedded head is compared by its version, because its directions are computed and their last bits could
        depend on the machine. Others are compared by the hash, and by name if a hash is missing.
        """
        if EMBEDDED_NAME in (self.name, other.name):
            return (self.name, self.version) == (other.name, other.version)
        if self.sha256 and other.sha256:
            return self.sha256 == other.sha256
        names = {self.name, other.name}
        return len(names) == 1 or ("flame" in names and all(name.startswith("flame") for name in names))


EMBEDDED_NAME = "embedded"
# A change of the directions of `head.procedural` needs a new version; tests/head/test_basis.py says so.
EMBEDDED = Basis(
    EMBEDDED_NAME, version="1", sha256="ed803d60b0e97cb61aa4b3f579293d1a22047ca2e291eb784fb54393a65d749c"
)
# The published weights are trained on fits of this head. Its file is licensed, so its hash is not known here.
PUBLISHED = Basis("flame2020")


def directions_digest(
    expression_directions: np.ndarray, jaw_regressor: np.ndarray, jaw_weights: np.ndarray
) -> str:
    """Returns the SHA-256 of the directions that expression and jaw move the vertices along, in hexadecimal digits.

    Args:
        expression_directions: `[v, 3, 50]` offsets, metres.
        jaw_regressor: `[v]` weights that place the jaw joint.
        jaw_weights: `[v]` skinning weights of the jaw.
    """
    digest = hashlib.sha256()
    for array in (expression_directions, jaw_regressor, jaw_weights):
        digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return digest.hexdigest()


def flame_name(*file_names: str) -> str:
    """Returns `flame2020`, `flame2023` or `flame`: the first year that one of the names contains."""
    for file_name in file_names:
        years = re.findall("|".join(_FLAME_YEARS), file_name)
        if years:
            return f"flame{years[0]}"
    return "flame"


def basis_of_record(record: Mapping[str, Any] | None, head: str | None = None) -> Basis | None:
    """Reads what `Basis.record` returned.

    Args:
        record: the record; None for files of earlier versions, which have none.
        head: head reference of the same file, or None.

    Returns:
        The basis; without a record that of the embedded head if `head` names it, else None, which means unknown.

    Raises:
        TypeError, ValueError: the record is not that of a basis.
    """
    if record is None:
        return EMBEDDED if head == PROCEDURAL else None
    if not isinstance(record, Mapping):
        raise TypeError(f"the basis is {record!r}, expected name, version and sha256")
    return Basis(**record)


def basis_of_arrays(arrays: Mapping[str, np.ndarray], head: str | None = None) -> Basis | None:
    """Reads what `Basis.arrays` returned from the arrays of a file; see `basis_of_record`."""
    if BASIS_ARRAYS["name"] not in arrays:
        return basis_of_record(None, head)
    found = {field: arrays.get(name) for field, name in BASIS_ARRAYS.items()}
    return Basis(**{field: str(array[()]) for field, array in found.items() if array is not None})


def check_basis(found: Basis | None, expected: Basis | None, *, source: str, other: str, advice: str) -> None:
    """Checks that two bases agree; an unknown basis agrees with all.

    Args:
        found: basis of `source`, or None if it is unknown.
        expected: basis of `other`, or None if it is unknown.
        source: what is checked, such as `--head=generic_model.pkl`.
        other: what it is used with, such as `the model outputs/demo/model`.
        advice: what to do instead.

    Raises:
        UserError: the bases disagree.
    """
    if found is None or expected is None or found.agrees_with(expected):
        return
    raise UserError(
        f"{source}: has the basis {found}, but {other} has the basis {expected}, so the same coefficients mean other "
        f"movements; {advice}"
    )
