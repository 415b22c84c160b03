"""The published checkpoints as parts of a model directory, at the published sizes and with the published quirks.

DEEPTalk.pth holds the generator with its wav2vec 2.0, a copy of DEE (its audio tower twice) and a copy of TH-VQVAE,
so it is enough to animate. Parts that have a file of their own are taken from that; a difference from the copy is
reported.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from deeptalk_jax.assembly import build
from deeptalk_jax.assembly.model_dir import Part, check_variables
from deeptalk_jax.assembly.stage_table import stage_row
from deeptalk_jax.errors import UserError
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

# Variant and ablation whose models compute what the published ones do.
CONFIG_ARGS = {
    "fer": "variant=base",
    "dee": "variant=base",
    "motion_prior": "variant=base,ablation=published_smoothing",
    "deeptalk": "variant=base,ablation=published_inference",
}
# Stand-alone encoders, and the stage whose config tells how they are built.
_ENCODERS = {"wav2vec2": "deeptalk", "emotion2vec": "dee"}
_AUDIO_TOWER = "audio_encoder."


class Imported(NamedTuple):
    """What a set of files gives.

    Attributes:
        parts: by stage name, and by encoder name for stand-alone encoders.
        sources: the file of every part.
        warnings: one sentence for every difference between files.
    """

    parts: dict[str, Part]
    sources: dict[str, Path]
    warnings: list[str]


def published_config(stage: str) -> ConfigDict:
    """Config of a stage as published."""
    return stage_row(stage).config_module.get_config(CONFIG_ARGS[stage])


def _shapes(init: Callable[[jax.Array], PyTree]) -> Shapes:
    return shapes_of(jax.eval_shape(init, jax.random.key(0)))


def fer_part(state: State) -> Part:
    """FER from the tensors of FER.pth.

    Raises:
        UserError: here and below, as `torch_places.fill`.
    """
    config = published_config("fer")
    model = build.build_fer(config)
    shapes = _shapes(lambda key: build.init_fer(model, key))
    return Part(config, fill(state, fer_places(model), FER_UNUSED, shapes))


def dee_part(state: State, *, prefix: str = "") -> Part:
    """DEE from the tensors of DEE.pt, or of the copy of it whose names began with `prefix`."""
    config = published_config("dee")
    model = build.build_dee(config)
    feature_dim = build.build_fer(published_config("fer")).feature_dim
    shapes = _shapes(lambda key: build.init_dee(model, feature_dim, key))
    return Part(config, fill(state, dee_places(model), DEE_UNUSED, shapes, prefix=prefix))


def prior_part(state: State, *, prefix: str = "") -> Part:
    """TH-VQVAE from the tensors of TH-VQVAE.pth, or of the copy of it whose names began with `prefix`."""
    config = published_config("motion_prior")
    model = build.build_motion_prior(config)
    shapes = _shapes(lambda key: build.init_motion_prior(model, key))
    constants = prior_constants(model)
    variables = fill(state, prior_places(), PRIOR_UNUSED, shapes, prefix=prefix, constants=constants)
    return Part(config, variables)


def predictor_part(state: State) -> Part:
    """The index predictor from the tensors of DEEPTalk.pth that are no copies."""
    config = published_config("deeptalk")
    model = build.build_generator(config, published_config("motion_prior"))
    embedding_dim = published_config("dee").model.embedding_dim
    shapes = _shapes(lambda key: build.init_predictor(model, embedding_dim, key))
    return Part(config, fill(state, predictor_places(model), GENERATOR_UNUSED, shapes))


def split_generator(state: State) -> tuple[State, State, State, list[str]]:
    """The tensors of DEEPTalk.pth by owner.

    Returns:
        Those of the index predictor, of DEE and of TH-VQVAE, the latter two under the names of their own files,
        and a warning if the two copies of DEE's audio tower differ.

    Raises:
        UserError: a copy is not there, or the two copies do not hold the same tensors.
    """
    copies = (PRIOR_COPY, DEE_COPY, AUDIO_TOWER_COPY)
    own = {name: tensor for name, tensor in state.items() if not name.startswith(copies)}
    prior, dee_copy, tower = (strip_prefix(state, prefix) for prefix in copies)
    tower = {_AUDIO_TOWER + name: tensor for name, tensor in tower.items()}
    first = {name: tensor for name, tensor in dee_copy.items() if name.startswith(_AUDIO_TOWER)}
    if difference := first_difference(first, tower):
        if np.isinf(difference.size):
            raise UserError(
                f"the tensors below {DEE_COPY + _AUDIO_TOWER!r} and {AUDIO_TOWER_COPY!r} should be the same; "
                f"{difference.name.removeprefix(_AUDIO_TOWER)!r} is not"
            )
        warning = (
            f"{DEE_COPY + difference.name} and its second copy below {AUDIO_TOWER_COPY} differ by up to "
            f"{difference.size:.3g} (tensors that differ: {difference.num_tensors}); "
            "the second copy counts, as in PyTorch"
        )
        return own, {**dee_copy, **tower}, prior, [warning]
    return own, dee_copy, prior, []


def encoder_part(kind: str, source: Path) -> Part:
    """A stand-alone speech encoder of the published size.

    Args:
        kind: wav2vec2 or emotion2vec.
        source: what `models.speech.load` takes.

    Raises:
        UserError: it cannot be read, is another file, or has another size.
    """
    config = ConfigDict(published_config(_ENCODERS[kind]).model.speech)
    model = build.build_speech_encoder(config)
    if kind == "emotion2vec":
        return Part(config, {"params": emotion2vec_params(read_published(source, kind), model)})
    _, variables = load_wav2vec2(source)
    expected = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 800), np.float32))
    check_variables(kind, variables, expected)
    return Part(config, variables)


# Files of parts that DEEPTalk.pth has copies of, and FER: flag -> part.
_OWN_FILES = {"fer": ("fer", fer_part), "dee": ("dee", dee_part), "prior": ("motion_prior", prior_part)}


def import_published(files: Mapping[str, Path]) -> Imported:
    """Reads published checkpoints.

    Args:
        files: flag of `published_files.FLAGS` -> file; for wav2vec2 also a folder or a name on the hub.

    Raises:
        UserError: a file cannot be read, is not what its flag says, or does not fit the published model; the
            message names the flag, the file and the tensor.
    """
    imported = Imported({}, {}, [])
    copies: dict[str, State] = {}
    if path := files.get("generator"):
        copies = _add_generator(imported, path)
    for flag, (name, make) in _OWN_FILES.items():
        if path := files.get(flag):
            with _naming(flag, path):
                state = read_published(path, flag)
                imported.parts[name], imported.sources[name] = make(state), path
            if name in copies:
                imported.warnings.extend(
                    _compared(flag, path, state, copies.pop(name), "its copy in DEEPTalk.pth")
                )
    for flag in _ENCODERS:
        if path := files.get(flag):
            with _naming(flag, path):
                imported.parts[flag], imported.sources[flag] = encoder_part(flag, path), path
    if {"wav2vec2", "deeptalk"} <= imported.parts.keys():
        theirs = imported.parts["wav2vec2"].variables["params"]
        frozen = imported.parts["deeptalk"].variables["params"]["speech_encoder"]
        theirs, frozen = (flatten_dict(tree, sep=".") for tree in (theirs, frozen))
        path = imported.sources["wav2vec2"]
        imported.warnings.extend(
            _compared("wav2vec2", path, theirs, frozen, "the encoder that DEEPTalk.pth keeps")
        )
    return imported


def _add_generator(imported: Imported, path: Path) -> dict[str, State]:
    """Adds the three parts of DEEPTalk.pth; returns the tensors of its copies by part."""
    with _naming("generator", path):
        own, dee_copy, prior_copy, found = split_generator(read_published(path, "generator"))
        imported.warnings.extend(f"--generator={path}: {sentence}" for sentence in found)
        imported.parts["dee"] = dee_part(dee_copy, prefix=DEE_COPY)
        imported.parts["motion_prior"] = prior_part(prior_copy, prefix=PRIOR_COPY)
        imported.parts["deeptalk"] = predictor_part(own)
    imported.sources.update(dict.fromkeys(imported.parts, path))
    return {"dee": dee_copy, "motion_prior": prior_copy}


def _compared(flag: str, path: Path, own: State, other: State, what: str) -> list[str]:
    """The warning that a file differs from what another one holds, if it does."""
    difference = first_difference(own, other)
    if difference is None:
        return []
    return [
        f"--{flag}={path}: differs from {what}, first in {difference.name} "
        f"by up to {difference.size:.3g} (tensors that differ: {difference.num_tensors}); the part takes {path}"
    ]


@contextmanager
def _naming(flag: str, path: Path) -> Iterator[None]:
    """Puts flag and file in front of what goes wrong inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--{flag}={path}: {str(error).removeprefix(f'{path}: ')}") from error
