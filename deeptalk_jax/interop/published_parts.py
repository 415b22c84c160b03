"""Converts the published checkpoints to parts of a model directory, with the published sizes and options.

DEEPTalk.pth contains the generator with its wav2vec 2.0, a copy of DEE (with two copies of its audio tower) and a copy
of TH-VQVAE, so this file alone is enough to animate. If the own file of a part is given too, it replaces the copy, and
a difference between the two is reported. The configs select the published behaviour (docs/method.md, section 9).
"""

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.model_dir import INDEX, Part, check_variables, index_basis, read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import PUBLISHED, Basis, check_basis
from deeptalk_jax.head.load import basis_of_head
from deeptalk_jax.interop.published_files import first_difference, read_published
from deeptalk_jax.interop.published_names import (
    AUDIO_TOWER_COPY,
    DEE_COPY,
    DEE_UNUSED,
    FER_UNUSED,
    GENERATOR_UNUSED,
    PRIOR_COPY,
    PRIOR_UNUSED,
    dee_places,
    fer_places,
    predictor_places,
    prior_constants,
    prior_places,
)
from deeptalk_jax.interop.speech_names import emotion2vec_params
from deeptalk_jax.interop.torch_places import PyTree, Shapes, State, fill, shapes_of, strip_prefix
from deeptalk_jax.interop.wav2vec2_file import load_wav2vec2

# Config of each stage that reproduces the published model. The wheel has no folder `configs`, and these do not change
# with it: tests/goldens/make_published_configs.py wrote them.
CONFIGS_FILE = Path(__file__).with_name("published_configs.json")
# Stand-alone speech encoders, and the stage whose config defines their fields.
_ENCODERS = {"wav2vec2": "deeptalk", "emotion2vec": "dee"}
_AUDIO_TOWER = "audio_encoder."
_WEIGHTS = "the published weights"


class Imported(NamedTuple):
    """Parts imported from a set of files.

    Attributes:
        parts: part by stage name, and by encoder name for stand-alone encoders.
        sources: source file of each part, by the same names.
        warnings: one sentence per difference between files.
    """

    parts: dict[str, Part]
    sources: dict[str, Path]
    warnings: list[str]


def published_config(stage: str) -> ConfigDict:
    """Returns the config of a stage that reproduces the published model."""
    return ConfigDict(json.loads(CONFIGS_FILE.read_text())[stage]).lock()


def head_and_basis(
    directory: str | os.PathLike, head: str | None, files: Collection[str]
) -> tuple[str | None, Basis | None]:
    """Returns head and basis of a model directory that published weights are imported into.

    Args:
        directory: model directory to create, or to add parts to.
        head: head reference, see `head.load.load_head`; None for that of an existing directory.
        files: flags of the files that are imported. Stand-alone encoders know no motion, so they fit every head.

    Returns:
        The head reference, or None without one; and the basis of the weights, with the hash of the head if there is
        one, because the file with which the weights were trained is not known; None if it is not determined.

    Raises:
        UserError: the head, or the existing model directory, has another basis than the published weights.
    """
    basis, given = None, head
    if (Path(directory) / INDEX).exists():
        index = read_index(directory)
        basis, head = index_basis(index), head or index["head"]
    found = basis_of_head(head) if head else None
    if set(files) <= _ENCODERS.keys():
        advice = "give a head of that model, or no --head"
        check_basis(found, basis, source=f"--head={given}", other=f"--out={directory}", advice=advice)
        return head, basis or found
    check_basis(basis, PUBLISHED, source=f"--out={directory}", other=_WEIGHTS, advice="choose another --out")
    if found is None:
        return head, basis or PUBLISHED
    advice = "give a file of FLAME 2020 (generic_model.pkl), or no --head"
    check_basis(found, PUBLISHED, source=f"--head={head}", other=_WEIGHTS, advice=advice)
    return head, replace(PUBLISHED, sha256=found.sha256)


def _shapes(init: Callable[[jax.Array], PyTree]) -> Shapes:
    return shapes_of(jax.eval_shape(init, jax.random.key(0)))


def fer_part(state: State) -> Part:
    """Builds the FER part from the tensors of FER.pth.

    Raises:
        UserError: A tensor is missing, left over or has the wrong shape, see `torch_places.fill`.
    """
    config = published_config("fer")
    model = build.build_fer(config)
    shapes = _shapes(lambda key: build.init_fer(model, key))
    return Part(config, fill(state, fer_places(model), FER_UNUSED, shapes))


def dee_part(state: State, *, prefix: str = "") -> Part:
    """Builds the DEE part from the tensors of DEE.pt, or of a copy that had names with `prefix`; errors as FER's."""
    config = published_config("dee")
    model = build.build_dee(config)
    feature_dim = build.build_fer(published_config("fer")).feature_dim
    shapes = _shapes(lambda key: build.init_dee(model, feature_dim, key))
    return Part(config, fill(state, dee_places(model), DEE_UNUSED, shapes, prefix=prefix))


def prior_part(state: State, *, prefix: str = "") -> Part:
    """Builds the TH-VQVAE part from the tensors of TH-VQVAE.pth or of a copy; arguments as in `dee_part`."""
    config = published_config("motion_prior")
    model = build.build_motion_prior(config)
    shapes = _shapes(lambda key: build.init_motion_prior(model, key))
    constants = prior_constants(model)
    variables = fill(state, prior_places(), PRIOR_UNUSED, shapes, prefix=prefix, constants=constants)
    return Part(config, variables)


def predictor_part(state: State) -> Part:
    """Builds the index predictor from the tensors of DEEPTalk.pth that are not copies of other parts."""
    config = published_config("deeptalk")
    model = build.build_generator(config, published_config("motion_prior"))
    embedding_dim = published_config("dee").model.embedding_dim
    shapes = _shapes(lambda key: build.init_predictor(model, embedding_dim, key))
    return Part(config, fill(state, predictor_places(model), GENERATOR_UNUSED, shapes))


def split_generator(state: State) -> tuple[State, State, State, list[str]]:
    """Splits the tensors of DEEPTalk.pth by part.

    Returns:
        Tensors of the index predictor, of DEE and of TH-VQVAE, the last two under the names of their own files; and a
        list with a warning if the two copies of DEE's audio tower differ.

    Raises:
        UserError: A copy is missing, or the copies of the audio tower have different tensor names or shapes.
    """
    copies = (PRIOR_COPY, DEE_COPY, AUDIO_TOWER_COPY)
    own = {name: tensor for name, tensor in state.items() if not name.startswith(copies)}
    prior, dee_copy, tower = (strip_prefix(state, prefix) for prefix in copies)
    tower = {_AUDIO_TOWER + name: tensor for name, tensor in tower.items()}
    first = {name: tensor for name, tensor in dee_copy.items() if name.startswith(_AUDIO_TOWER)}
    if difference := first_difference(first, tower):
        if np.isinf(difference.size):
            raise UserError(
                f"the tensors with the prefixes {DEE_COPY + _AUDIO_TOWER!r} and {AUDIO_TOWER_COPY!r} should have the "
                f"same names and shapes; {difference.name.removeprefix(_AUDIO_TOWER)!r} does not"
            )
        warning = (
            f"{DEE_COPY + difference.name} and its second copy with the prefix {AUDIO_TOWER_COPY} differ by up to "
            f"{difference.size:.3g} (tensors that differ: {difference.num_tensors}); "
            "the second copy is used, as in PyTorch"
        )
        return own, {**dee_copy, **tower}, prior, [warning]
    return own, dee_copy, prior, []


def encoder_part(kind: str, source: Path) -> Part:
    """Builds the part of a stand-alone speech encoder of the published size.

    Args:
        kind: "wav2vec2" or "emotion2vec".
        source: a checkpoint file; for wav2vec2 also a folder or a hub name, see `wav2vec2_file.load_wav2vec2`.

    Raises:
        UserError: The source cannot be read, is not the expected file, or has another size.
    """
    config = ConfigDict(published_config(_ENCODERS[kind]).model.speech)
    model = build.build_speech_encoder(config)
    if kind == "emotion2vec":
        return Part(config, {"params": emotion2vec_params(read_published(source, kind), model)})
    _, variables = load_wav2vec2(source)
    expected = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 800), np.float32))
    check_variables(kind, variables, expected)
    return Part(config, variables)


# Parts with a file of their own: flag -> (part name, function that builds the part).
_OWN_FILES = {"fer": ("fer", fer_part), "dee": ("dee", dee_part), "prior": ("motion_prior", prior_part)}


def import_published(files: Mapping[str, Path]) -> Imported:
    """Imports published checkpoint files.

    Args:
        files: flag of `published_files.FLAGS` -> file; for wav2vec2 also a folder or a hub name.

    Returns:
        The parts, with their sources and warnings about differences.

    Raises:
        UserError: A file cannot be read, is not the one that its flag expects, or does not fit the published model.
            The message names the flag, the file and the tensor.
    """
    imported = Imported({}, {}, [])
    copies: dict[str, State] = {}
    if path := files.get("generator"):
        copies = _add_generator(imported, path)
    for flag, (name, make) in _OWN_FILES.items():
        if path := files.get(flag):
            with _source_in_errors(flag, path):
                state = read_published(path, flag)
                imported.parts[name], imported.sources[name] = make(state), path
            if name in copies:
                imported.warnings.extend(
                    _difference_warnings(flag, path, state, copies.pop(name), "its copy in DEEPTalk.pth")
                )
    for flag in _ENCODERS:
        if path := files.get(flag):
            with _source_in_errors(flag, path):
                imported.parts[flag], imported.sources[flag] = encoder_part(flag, path), path
    if {"wav2vec2", "deeptalk"} <= imported.parts.keys():
        given = imported.parts["wav2vec2"].variables["params"]
        copy = imported.parts["deeptalk"].variables["params"]["speech_encoder"]
        given, copy = (flatten_dict(tree, sep=".") for tree in (given, copy))
        path = imported.sources["wav2vec2"]
        imported.warnings.extend(
            _difference_warnings("wav2vec2", path, given, copy, "the encoder in DEEPTalk.pth")
        )
    return imported


def _add_generator(imported: Imported, path: Path) -> dict[str, State]:
    """Adds the three parts of DEEPTalk.pth. Returns the tensors of its copies by part name."""
    with _source_in_errors("generator", path):
        own, dee_copy, prior_copy, found = split_generator(read_published(path, "generator"))
        imported.warnings.extend(f"--generator={path}: {sentence}" for sentence in found)
        imported.parts["dee"] = dee_part(dee_copy, prefix=DEE_COPY)
        imported.parts["motion_prior"] = prior_part(prior_copy, prefix=PRIOR_COPY)
        imported.parts["deeptalk"] = predictor_part(own)
    imported.sources.update(dict.fromkeys(imported.parts, path))
    return {"dee": dee_copy, "motion_prior": prior_copy}


def _difference_warnings(flag: str, path: Path, own: State, other: State, what: str) -> list[str]:
    """Returns a list with a warning if the tensors of a file differ from those of `what`, else an empty list."""
    difference = first_difference(own, other)
    if difference is None:
        return []
    return [
        f"--{flag}={path}: differs from {what}, first in {difference.name} "
        f"by up to {difference.size:.3g} (tensors that differ: {difference.num_tensors}); {path} is used"
    ]


@contextmanager
def _source_in_errors(flag: str, path: Path) -> Iterator[None]:
    """Adds the flag and the file to the message of any UserError raised inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--{flag}={path}: {str(error).removeprefix(f'{path}: ')}") from error
