"""Loads heads: the embedded head, FLAME model files, and npz files written by `save_head`.

FLAME (Li et al., SIGGRAPH Asia 2017) has its own licence and is not part of this project. The reader accepts
`generic_model.pkl` (FLAME 2020), `flame2023.pkl` or an npz with the same keys. It keeps the first 100 of the 300
identity directions and the first 50 of the 100 expression directions.
"""

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from deeptalk_jax.errors import UserError
from deeptalk_jax.files import replace_when_whole
from deeptalk_jax.head.basis import (
    EMBEDDED,
    PROCEDURAL,
    Basis,
    basis_of_record,
    directions_digest,
    flame_name,
)
from deeptalk_jax.head.flame_masks import flame_surface
from deeptalk_jax.head.model import JAW, JOINT_PARENTS, NUM_POSE_FEATURES, HeadModel, HeadSurface
from deeptalk_jax.head.unpickle import HEAD_MODEL_GLOBALS, as_array, restricted_load
from deeptalk_jax.types import EXPRESSION_DIM

_FLAME_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights")
_EXPECTED = "a FLAME model (generic_model.pkl, flame2023.pkl or npz with the same keys)"
_NUM_FLAME_IDENTITY = 300  # shapedirs holds the identity directions first, then the expression directions
_NUM_SHAPE_COEFFS = 100
_FORMAT = "deeptalk_jax head 1"
_ARRAYS = (
    "template",
    "expression_directions",
    "shape_directions",
    "pose_directions",
    "joint_regressor",
    "skinning_weights",
)


def load_head(spec: str | None) -> HeadModel:
    """Loads the head that a flag or a model directory names.

    Args:
        spec: "procedural" for the embedded head, or the path of a `.pkl` or `.npz` file; None for a model that was
            imported without a head, which is an error.

    Returns:
        The head, with float32 arrays.

    Raises:
        UserError: The file is missing, damaged, or not a head; the message is one line and names the file.
    """
    if spec is None:
        raise UserError("the model names no head; import it again with --head=FILE")
    if spec == PROCEDURAL:
        from deeptalk_jax.head.procedural import procedural_head  # here, because it imports scipy.spatial

        return procedural_head()
    path = Path(spec)
    if not path.is_file():
        raise UserError(f'{spec}: no such file; expected "{PROCEDURAL}" or {_EXPECTED}')
    if path.suffix == ".npz":
        arrays = _read_npz(path)
        if "format" in arrays:
            return _head_from_arrays(
                path, {name: array for name, array in arrays.items() if array is not None}
            )
        return _head_from_flame(path, arrays)
    if path.suffix in (".pkl", ".pickle"):
        return _head_from_flame(path, _read_pickle(path))
    raise UserError(f"{spec}: unknown file extension {path.suffix!r}; expected {_EXPECTED}")


def basis_of_head(spec: str) -> Basis | None:
    """Returns the basis of the head that `load_head` would return; the embedded head is not built for it.

    Raises:
        UserError: see `load_head`.
    """
    return EMBEDDED if spec == PROCEDURAL else load_head(spec).basis


def save_head(path: str | os.PathLike, head: HeadModel) -> None:
    """Writes a head to an npz file, so that `load_head(path)` returns an equal head.

    The write is atomic: an interrupted call leaves no partial file.

    Args:
        path: file to write; must end in `.npz`.
        head: the head to write.

    Raises:
        UserError: The path does not end in `.npz`.
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise UserError(f"{path}: heads are written as .npz; choose a path that ends in .npz")
    surface = head.surface
    contents = {name: np.asarray(getattr(head, name)) for name in _ARRAYS}
    contents |= {f"mask/{name}": indices for name, indices in surface.masks.items()}
    contents |= {name: getattr(surface, name) for name in ("faces", "materials", "albedo")}
    header = {
        "name": head.name,
        "parents": head.parents,
        "landmarks": dict(surface.landmarks),
        "mask_source": surface.mask_source,
        "basis": head.basis and head.basis.record(),
    }
    with replace_when_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, format=_FORMAT, header=json.dumps(header), **contents)


def _read_npz(path: Path) -> dict[str, np.ndarray | None]:
    """Reads the entries of an npz file; those that hold Python objects are None, because only some are needed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            entries = {}
            for name in file.files:
                try:
                    entries[name] = file[name]
                except ValueError:
                    entries[name] = None
            return entries
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"{path}: not a readable npz ({type(error).__name__}); expected {_EXPECTED}"
        ) from None


def _read_pickle(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        contents = restricted_load(file, source=str(path), expected=_EXPECTED, allowed=HEAD_MODEL_GLOBALS)
    if not isinstance(contents, dict):
        raise UserError(f"{path}: holds a {type(contents).__name__}, not a dictionary; expected {_EXPECTED}")
    return contents


def _flame_arrays(path: Path, contents: dict[str, Any]) -> dict[str, np.ndarray]:
    missing = [key for key in _FLAME_KEYS if key not in contents]
    if missing:
        raise UserError(f"{path}: no entry {', '.join(missing)}; expected {_EXPECTED}")
    arrays = {key: as_array(contents[key]) for key in _FLAME_KEYS}
    for key, array in arrays.items():
        if array is None:
            raise UserError(
                f"{path}: entry {key} does not hold an array of numbers, as np.savez stores it; expected {_EXPECTED}"
            )
    num_vertices = arrays["v_template"].shape[0] if arrays["v_template"].ndim else 0
    num_joints = len(JOINT_PARENTS)
    wanted = {
        "v_template": (num_vertices, 3),
        "f": (None, 3),
        "shapedirs": (num_vertices, 3, None),
        "posedirs": (num_vertices, 3, NUM_POSE_FEATURES),
        "J_regressor": (num_joints, num_vertices),
        "weights": (num_vertices, num_joints),
    }
    for key, shape in wanted.items():
        found = arrays[key].shape
        if len(found) != len(shape) or any(w not in (None, f) for w, f in zip(shape, found, strict=True)):
            shown = " x ".join("any" if n is None else str(n) for n in shape)
            raise UserError(
                f"{path}: entry {key} has shape {found}, expected {shown} (5 joints, as in FLAME)"
            )
    if arrays["shapedirs"].shape[2] < _NUM_FLAME_IDENTITY + EXPRESSION_DIM:
        raise UserError(
            f"{path}: shapedirs has {arrays['shapedirs'].shape[2]} directions, expected at least "
            f"{_NUM_FLAME_IDENTITY} identity and {EXPRESSION_DIM} expression directions"
        )
    faces = arrays["f"]
    if faces.size == 0 or faces.max() >= num_vertices or faces.min() < 0:
        raise UserError(f"{path}: faces refer to vertices outside 0..{num_vertices - 1}; the file is damaged")
    return arrays


def _check_tree(path: Path, contents: dict[str, Any]) -> None:
    tree = as_array(contents.get("kintree_table"))
    if tree is not None and tuple(int(p) for p in np.atleast_2d(tree)[0][1:]) != JOINT_PARENTS[1:]:
        raise UserError(
            f"{path}: the joint parents are {np.atleast_2d(tree)[0].tolist()}; "
            f"expected those of FLAME, {list(JOINT_PARENTS)}"
        )


def _head_from_flame(path: Path, contents: dict[str, Any]) -> HeadModel:
    arrays = _flame_arrays(path, contents)
    _check_tree(path, contents)
    directions = arrays["shapedirs"].astype(np.float32)
    expression = directions[..., _NUM_FLAME_IDENTITY : _NUM_FLAME_IDENTITY + EXPRESSION_DIM]
    template = arrays["v_template"].astype(np.float32)
    regressor = arrays["J_regressor"].astype(np.float32)
    weights = arrays["weights"].astype(np.float32)
    return HeadModel(
        template=jnp.asarray(template),
        expression_directions=jnp.asarray(expression),
        shape_directions=jnp.asarray(directions[..., :_NUM_SHAPE_COEFFS]),
        pose_directions=jnp.asarray(np.moveaxis(arrays["posedirs"].astype(np.float32), -1, 0)),
        joint_regressor=jnp.asarray(regressor),
        skinning_weights=jnp.asarray(weights),
        surface=flame_surface(path, template, arrays["f"].astype(np.int32), regressor @ template),
        name=path.name,
        basis=Basis(
            # The model file of FLAME 2020 is called generic_model.pkl, so the year is often in the folder only.
            flame_name(path.name, path.absolute().parent.name),
            sha256=directions_digest(expression, regressor[JAW], weights[:, JAW]),
        ),
    )


def _head_from_arrays(path: Path, arrays: dict[str, np.ndarray]) -> HeadModel:
    if str(arrays.get("format")) != _FORMAT:
        raise UserError(f"{path}: format {str(arrays.get('format'))!r}, expected {_FORMAT!r}")
    try:
        header = json.loads(str(arrays["header"]))
        masks = {key[5:]: value for key, value in arrays.items() if key.startswith("mask/")}
        surface = HeadSurface(
            arrays["faces"],
            arrays["materials"],
            arrays["albedo"],
            masks,
            header["landmarks"],
            header.get("mask_source", ""),
        )
        return HeadModel(
            **{name: jnp.asarray(arrays[name]) for name in _ARRAYS},
            surface=surface,
            parents=tuple(header["parents"]),
            name=header["name"],
            basis=_basis_of_saved(header, arrays),
        )
    except KeyError as error:
        raise UserError(
            f"{path}: no entry {error.args[0]}; the file may come from another version, write it again with save_head"
        ) from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: its header is damaged ({error}); write it again with save_head") from None


def _basis_of_saved(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Basis:
    """Returns the basis of a file of `save_head`: its name as recorded, and the hash of the directions in the file."""
    # Without a record, the name is that of the file that the head was loaded from.
    from_flame = any(word in header["name"].lower() for word in ("flame", "generic_model"))
    named = Basis(flame_name(header["name"]) if from_flame else "custom")
    basis = basis_of_record(header.get("basis"), header["name"]) or named
    if basis.name == EMBEDDED.name:
        return basis
    digest = directions_digest(
        arrays["expression_directions"], arrays["joint_regressor"][JAW], arrays["skinning_weights"][:, JAW]
    )
    return replace(basis, sha256=digest)
