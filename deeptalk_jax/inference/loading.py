"""What a model directory holds for inference: DEE, the generator, and how to run them."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from deeptalk_jax.assembly.build import (
    build_dee,
    build_generator,
    init_dee,
    init_motion_prior,
    init_predictor,
    with_prior,
)
from deeptalk_jax.assembly.model_dir import check_variables, load_part, read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.inference.options import InferenceOptions
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator

PyTree = Any

# FER, which only reads motion, may be missing: DEEPTalk.pth holds everything else.
_NEEDED_PARTS = ("dee", "motion_prior", "deeptalk")


class LoadedGenerator(NamedTuple):
    """Modules and variables, checked against one another.

    Attributes:
        dee: DEE.
        dee_variables: its variables.
        dee_statistics: centroids of the emotions, or empty.
        model: the generator.
        variables: of both of its halves.
        config: of the part deeptalk.
        options: rules of inference.
        head: reference, as `load_head` takes it.
    """

    dee: DEE
    dee_variables: PyTree
    dee_statistics: Mapping[str, np.ndarray]
    model: Generator
    variables: PyTree
    config: ConfigDict
    options: InferenceOptions
    head: str


def load_generator(directory: str | os.PathLike) -> LoadedGenerator:
    """Reads the parts of a model directory that make motion from speech.

    Raises:
        UserError: no model directory, a damaged one, or one without dee, motion_prior or deeptalk.
    """
    index = read_index(directory)
    dee, prior, predictor = (load_part(directory, name) for name in _NEEDED_PARTS)
    try:
        dee_model = build_dee(dee.config)
        model = build_generator(predictor.config, prior.config)
        options = InferenceOptions.from_config(predictor.config)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{directory}: a config in its index describes no model ({error})") from error
    embedding_dim = dee.config.model.embedding_dim
    motion_map = dee.variables.get("params", {}).get("motion_map", {}).get("kernel", np.zeros((1, 1)))
    for name, part, initialise in (
        ("dee", dee, lambda key: init_dee(dee_model, motion_map.shape[0], key)),
        ("motion_prior", prior, lambda key: init_motion_prior(model.prior, key)),
        ("deeptalk", predictor, lambda key: init_predictor(model, embedding_dim, key)),
    ):
        check_variables(name, part.variables, jax.eval_shape(initialise, jax.random.key(0)))
    return LoadedGenerator(
        dee=dee_model,
        dee_variables=dee.variables,
        dee_statistics=dee.statistics,
        model=model,
        variables=with_prior(predictor.variables, prior.variables),
        config=predictor.config,
        options=options,
        head=index["head"],
    )
