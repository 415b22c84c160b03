"""Speaker identity of a motion: a training speaker, the mean of all, a blend of them, or a fitted identity.

3                    the training speaker with this number
3:0.5,7:0.5          a blend; the mean of all speakers fills weights up to a sum of 1, larger sums are scaled to 1
person.json          a file written by `python -m deeptalk_jax.tools.fit_identity`
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from deeptalk_jax.assembly.build import identity_vector
from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.inference.blend_grammar import BlendReader

FORMAT = "deeptalk_jax identity"
SUFFIX = ".json"

# Number of a training speaker, text as in the module docstring, an identity file, or a vector `[i]`.
Identity = int | str | os.PathLike | np.ndarray | None


def read_identity(config: ConfigDict, source: Identity) -> Float[np.ndarray, " i"]:
    """Returns the identity vector `[i]` of a source; None gives the mean of the training speakers.

    Args:
        config: config of the part deeptalk.
        source: number, text, file or vector, see the module docstring.

    Raises:
        UserError: the training identity does not exist, the text cannot be read, the file is missing or not an
            identity file, or the vector has another length or values that are not finite.
    """
    if isinstance(source, str) and not source.endswith(SUFFIX):
        return _blend(config, source)
    if source is None or isinstance(source, (int, np.integer)):
        return _trained(config, source)
    if isinstance(source, (str, os.PathLike)):
        return _checked(config, f"{source}: ", _read_file(Path(source)))
    return _checked(config, "", np.asarray(source))


def _trained(config: ConfigDict, number: int | None) -> np.ndarray:
    try:
        return np.asarray(identity_vector(config, number), np.float32)
    except ValueError as error:
        raise UserError(str(error)) from error


def _blend(config: ConfigDict, text: str) -> np.ndarray:
    known = f"the trained identities are 0 to {config.data.num_identities - 1}"
    reader = BlendReader("identity", f"NUMBER[:WEIGHT] or a {SUFFIX} file of fit_identity", known)
    blend = reader.items(text)
    total = sum(weight for _, weight in blend)
    vector = max(1.0 - total, 0.0) * _trained(config, None)
    for name, weight in blend:
        if not name.removeprefix("-").isdecimal():
            raise reader.malformed(text, name)
        vector += np.float32(weight / max(total, 1.0)) * _trained(config, int(name))
    return vector


def _checked(config: ConfigDict, place: str, vector: np.ndarray) -> np.ndarray:
    length = config.model.num_identities
    if vector.shape != (length,):
        raise UserError(f"{place}identity vector of shape {vector.shape}; this model expects ({length},)")
    if not np.isfinite(vector).all():
        raise UserError(f"{place}identity vector with values that are not finite")
    return vector.astype(np.float32)


def write_identity(path: Path, vector: np.ndarray, notes: Mapping[str, Any]) -> None:
    """Writes an identity file.

    Args:
        path: path of the file, ending in `.json`.
        vector: `[i]` identity vector.
        notes: further entries of the JSON object.

    Raises:
        UserError: the file cannot be written.
    """
    contents = {"format": FORMAT, "identity": [round(float(weight), 7) for weight in vector], **notes}
    try:
        with replace_when_whole(path) as temporary:
            temporary.write_text(json.dumps(contents, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def _read_file(path: Path) -> np.ndarray:
    try:
        contents = json.loads(path.read_text())
        if contents["format"] != FORMAT:
            raise ValueError(f"format {contents['format']!r}")
        return np.asarray(contents["identity"], np.float64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:  # ValueError: also broken JSON, and text not in UTF-8
        raise UserError(f"{path}: not an identity file of fit_identity ({error})") from error
