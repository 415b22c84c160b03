"""The trained generator of a model directory: DEE, predictor and prior, checked against their configs."""

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
from deeptalk_jax.assembly.model_dir import check_variables, index_basis, load_part, read_index
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.basis import Basis
from deeptalk_jax.inference.options import InferenceOptions
from deeptalk_jax.models.dee import DEE
from deeptalk_jax.models.generator import Generator

PyTree = Any

# FER is needed only to take an emotion from a motion; a model imported from DEEPTalk.pth alone lacks it.
_NEEDED_PARTS = ("dee", "motion_prior", "deeptalk")


class TrainedGenerator(NamedTuple):
    """Modules with their variables.

    Attributes:
        dee: the emotion embedding.
        dee_variables: variables of `dee`.
        dee_statistics: emotion centroids of `dee`, or empty.
        model: the generator.
        variables: variables of `model`, both of its predictor and of its prior.
        config: config of the part deeptalk.
        options: rules of inference.
        head: head reference, as `load_head` takes it; None if the model has no head of its own.
        basis: what the motion coefficients stand for; None if it is not known.
    """

    dee: DEE
    dee_variables: PyTree
    dee_statistics: Mapping[str, np.ndarray]
    model: Generator
    variables: PyTree
    config: ConfigDict
    options: InferenceOptions
    head: str | None
    basis: Basis | None


def load_generator(directory: str | os.PathLike) -> TrainedGenerator:
    """Loads the parts of a model directory that generate motion from speech.

    Raises:
        UserError: the directory is not a model directory, is damaged, lacks one of the parts dee, motion_prior and
            deeptalk, or holds variables that do not fit its configs.
    """
    index = read_index(directory)
    dee, prior, predictor = (load_part(directory, name) for name in _NEEDED_PARTS)
    try:
        dee_model = build_dee(dee.config)
        model = build_generator(predictor.config, prior.config)
        options = InferenceOptions.from_config(predictor.config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{directory}: a config in its index describes no model ({error})") from error
    embedding_dim = dee.config.model.embedding_dim
    motion_map = dee.variables.get("params", {}).get("motion_map", {}).get("kernel", np.zeros((1, 1)))
    for name, part, initialise in (
        ("dee", dee, lambda: init_dee(dee_model, motion_map.shape[0], jax.random.key(0))),
        ("motion_prior", prior, lambda: init_motion_prior(model.prior, jax.random.key(0))),
        ("deeptalk", predictor, lambda: init_predictor(model, embedding_dim, jax.random.key(0))),
    ):
        check_variables(name, part.variables, jax.eval_shape(initialise))
    return TrainedGenerator(
        dee=dee_model,
        dee_variables=dee.variables,
        dee_statistics=dee.statistics,
        model=model,
        variables=with_prior(predictor.variables, prior.variables),
        config=predictor.config,
        options=options,
        head=index["head"],
        basis=index_basis(index),
    )
