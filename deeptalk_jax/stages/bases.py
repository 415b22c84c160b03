"""Checks before a run that all of its inputs mean the same by motion coefficients.

A run reads motion from a data set or a file of frames, networks that were trained on motion, and a head. If one of them
has another basis, the run would train without an error and its faces would be nonsense.
"""

from collections.abc import Iterator

from etils import epath
from ml_collections import ConfigDict

from data_pipeline.frames import frames_basis, split_file
from data_pipeline.registry import dataset_basis
from deeptalk_jax.assembly.model_dir import index_basis, read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import Basis, check_basis
from deeptalk_jax.stages.inputs import model_of


def check_bases(config: ConfigDict, basis: Basis | None, *, of: str) -> None:
    """Checks the basis of every input of a run.

    Inputs that are missing or damaged are left to the code that loads them, whose errors say more.

    Args:
        config: resolved config of the stage.
        basis: basis that the inputs must have; None if it is not known.
        of: what has this basis, for messages.

    Raises:
        UserError: an input has another basis; the message names both.
    """
    for source, found, advice in _inputs(config):
        check_basis(found, basis, source=source, other=of, advice=advice)


def check_data_of_model(model: epath.PathLike, data_dir: str, dataset: str) -> None:
    """Checks the basis of a data set that a trained model is measured on.

    Raises:
        UserError: there is no such model directory or data set, or their bases disagree.
    """
    check_basis(
        dataset_basis(data_dir, dataset),
        index_basis(read_index(model)),
        source=f"data set {dataset} in {data_dir}",
        other=f"the model {model}",
        advice="give a data set of the head that the model was trained for",
    )


def _inputs(config: ConfigDict) -> Iterator[tuple[str, Basis | None, str]]:
    """Yields name, basis and advice of every input that can be read."""
    data = config.data
    frames_file = data.frames_file if "frames_file" in data else ""
    advice = "give the data that fit, or --config.head=HEAD of these data"
    if frames_file:
        file = split_file(frames_file, "train")
        yield f"--config.data.frames_file={frames_file}", _readable(frames_basis, file), advice
    else:
        source = f"data set {data.dataset} in {data.data_dir}"
        yield source, _readable(dataset_basis, data.data_dir, data.dataset), advice
    directories = {f"upstream.{flag}": directory for flag, directory in config.upstream.items()}
    for flag, directory in (directories | {"init_from": config.init_from}).items():
        if directory:
            found = _readable(lambda path: index_basis(read_index(model_of(path))), directory)
            yield f"--config.{flag}={directory}", found, "give a model that was trained for the same head"


def _readable(read, *place) -> Basis | None:
    try:
        return read(*place)
    except UserError:
        return None
