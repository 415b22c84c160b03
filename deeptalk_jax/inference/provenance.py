"""`Provenance`: the model and the settings that made a motion, stored in its `.npz` file.

A file that is found a year later still tells what its numbers are and how to make them again. All fields become small
numpy arrays of text or numbers, which are read without pickle.
"""

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from etils import epath

from deeptalk_jax.assembly.model_dir import INDEX
from deeptalk_jax.head.actions import EXPRESSION_ACTIONS
from deeptalk_jax.head.basis import EMBEDDED_NAME, Basis, basis_of_arrays, basis_of_record
from deeptalk_jax.types import EXPRESSION_DIM

_JAW_CHANNELS = ("jaw_x", "jaw_y", "jaw_z")
# FLAME's expression directions are principal components without names.
NUMBERED_CHANNELS = (*(f"expression_{index}" for index in range(EXPRESSION_DIM)), *_JAW_CHANNELS)


@dataclass(frozen=True)
class Provenance:
    """Origin of a motion.

    Attributes:
        head: reference of the head that the model was trained for, "procedural" or a file; empty for a model
            without a head of its own.
        model_index_sha256: SHA-256 of `model.json` of the model directory, in hexadecimal digits.
        emotion: source of the emotion, such as `happy@2` or `audio other.wav`; "speech" for the emotion of the sound.
        identity: source of the speaker identity, such as `3`; "mean" for the mean of the training speakers.
        seed: random seed of this motion.
        temperature_top: see `Sampling`, as for the next three.
        temperature_bottom: see `Sampling`.
        top_p: see `Sampling`.
        alpha: see `Sampling`.
        version: version of deeptalk_jax.
        basis: what the coefficients stand for; None if the model does not record it.
        blinks: whether blinks were added by rule; False in files of versions that had none.
    """

    head: str
    model_index_sha256: str
    emotion: str
    identity: str
    seed: int
    temperature_top: float
    temperature_bottom: float
    top_p: float
    alpha: float
    version: str
    basis: Basis | None = None
    blinks: bool = False

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns every field as an array without axes: unicode text, int64, float64 or bool."""
        arrays = {name: np.array(getattr(self, name)) for name in self.names()}
        return arrays | (self.basis.arrays() if self.basis else {})

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Returns the names of the fields that every motion file has had since there are origins, and `blinks`."""
        return tuple(field.name for field in _RECORDED)

    @property
    def known_basis(self) -> Basis | None:
        """What the coefficients stand for; without a record that of the embedded head, if it is the head."""
        return self.basis or basis_of_record(None, self.head)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Provenance | None":
        """Reads what `arrays` returned; None if a field is missing, as in files of earlier versions.

        Raises:
            TypeError: a field is an array with axes, or holds text where a number is expected.
            ValueError: a field holds text that is not a number.
        """
        if not set(cls.names()) - {"blinks"} <= arrays.keys():
            return None
        values = {
            field.name: field.type(arrays[field.name][()]) for field in _RECORDED if field.name in arrays
        }
        return cls(**values, basis=basis_of_arrays(arrays))


_RECORDED = tuple(field for field in fields(Provenance) if field.name != "basis")


def channel_names(basis: Basis | None) -> tuple[str, ...]:
    """Returns the names of the 53 channels of `Motion.frames`.

    The first 50 are the facial actions of the embedded head, or `expression_0` to `expression_49` for other heads. The
    last three are the components of the jaw's rotation vector, in radians.

    Args:
        basis: what the coefficients stand for; None if it is not known.
    """
    is_embedded = basis is not None and basis.name == EMBEDDED_NAME
    return (*EXPRESSION_ACTIONS, *_JAW_CHANNELS) if is_embedded else NUMBERED_CHANNELS


def model_digest(directory: str | os.PathLike) -> str:
    """Returns the SHA-256 of the index of a model directory, in hexadecimal digits."""
    return hashlib.sha256((epath.Path(directory) / INDEX).read_bytes()).hexdigest()


def package_version() -> str:
    """Returns the version of the installed package, or "unknown" for a source tree that is not installed."""
    try:
        return importlib.metadata.version("deeptalk_jax")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def source_text(default: str, source: object, **others: object) -> str:
    """Describes the source of an emotion or an identity in a few words.

    Text, numbers and paths are kept; arrays and other objects are named by their type, because a file of text cannot
    hold them.

    Args:
        default: result if all sources are None.
        source: the source that needs no word before it, or None.
        **others: sources by their kind, such as `audio`, which becomes the first word of the result.
    """
    given = [("", source), *((f"{kind} ", other) for kind, other in others.items())]
    for prefix, value in given:
        if isinstance(value, (str, int, np.integer, os.PathLike)):
            return f"{prefix}{value}"
        if value is not None:
            return f"{prefix}{type(value).__name__}"
    return default
