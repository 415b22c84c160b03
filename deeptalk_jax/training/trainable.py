"""The contract between the training loop and a stage.

The loop in `training` knows nothing else about a stage, so anything that implements `Trainable` can be trained.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import jax
import numpy as np
from jaxtyping import Array as KeyArray

from deeptalk_jax.types import Array

PyTree = Any


class HasMetrics(Protocol):
    """Result of an evaluation; stages return `evaluation.result.Evaluation`.

    Attributes:
        metrics: numbers that are compared between runs.
    """

    metrics: Mapping[str, float]


class Trainable(abc.ABC):
    """A model with its loss, its training batches and its evaluation.

    Attributes:
        name: stage name, used in messages and progress bars.
    """

    name: str

    @abc.abstractmethod
    def init(self, key: KeyArray) -> PyTree:
        """Returns the variables before training: `params` and the mutable collections of the model."""

    def pretrained_params(self) -> PyTree:
        """Returns top-level entries of `params` that replace those of `init`; none by default."""
        return {}

    def starting_variables(self) -> PyTree | None:
        """Returns variables of another run, with the shapes of `init`, from which training starts; None by default."""
        return None

    def input_digests(self) -> Mapping[str, str]:
        """Returns a digest of each file or directory that the config names, see `workdir.claim_workdir`."""
        return {}

    def constants(self) -> PyTree:
        """Returns arrays that the loss reads and no optimiser changes; none by default.

        Examples are the variables of upstream parts, class weights and the factors of the vertex distance. They are
        an argument of the compiled step, so that they are neither copied into it nor differentiated.
        """
        return {}

    @abc.abstractmethod
    def loss_fn(
        self,
        params: PyTree,
        model_state: PyTree,
        constants: PyTree,
        batch: dict[str, Array],
        step: Array,
        key: KeyArray,
    ) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
        """Computes the loss of a batch.

        Args:
            params: all parameters of the stage, including those that `optimiser.frozen` keeps unchanged.
            model_state: mutable collections of the model, such as `batch_stats` and `codebook`.
            constants: see `constants`.
            batch: arrays of `batch_shapes`, and those of `window_features`.
            step: number of steps taken before this one.
            key: random key of this step.

        Returns:
            The total loss, a scalar; the new mutable collections; and the unweighted terms by name, scalars.
        """

    def window_features(
        self, variables: PyTree, constants: PyTree, batch: dict[str, Array]
    ) -> dict[str, Array]:
        """Computes the outputs of frozen networks for a batch of training windows.

        The training step adds them to the batch in front of `loss_fn`. They depend only on the window, never on the
        step, so they can also be computed once and read from files (`train_batches(window_features=...)`).

        Args:
            variables: `params` and the mutable collections of the stage; only parameters that are frozen may be read.
            constants: see `constants`.
            batch: arrays of `batch_shapes`.

        Returns:
            Arrays `[b, ...]` by name; empty by default, which means that the stage has no such features.
        """
        return {}

    @abc.abstractmethod
    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a global training batch, without window features."""

    @abc.abstractmethod
    def train_batches(
        self,
        *,
        num_processes: int,
        process_index: int,
        window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Returns an iterator over training batches, which can be resumed with `get_state` and `set_state`.

        Args:
            num_processes: number of processes of the run.
            process_index: index of this process; it gets only its own rows of every global batch.
            window_features: precomputed `window_features` of every training window, which the batches then contain;
                None to have the training step compute them.
        """

    def validation_batches(
        self, num_batches: int, *, num_processes: int, process_index: int
    ) -> Sequence[dict[str, np.ndarray]]:
        """Returns fixed batches of the validation split, shaped like those of training; none by default.

        Args:
            num_batches: number of batches.
            num_processes: number of processes of the run.
            process_index: index of this process; it gets only its own rows of every global batch.
        """
        return []

    def describe_data(self) -> str:
        """Returns one line on the training data, which a run prints at its start."""
        return "batches of the stage"

    def describe_head(self) -> str:
        """Returns one line on the head model of the run, which a run prints at its start; empty if there is none."""
        return ""

    def example_names(self, batch: Mapping[str, np.ndarray]) -> list[str]:
        """Returns one name per row of a training batch, for error messages; empty where rows have no names."""
        return []

    def criteria(self) -> Mapping[str, Literal["higher", "lower"]]:
        """Returns the metrics that `config.keep_best` may name, with the direction that is better; none by default."""
        return {}

    @abc.abstractmethod
    def evaluate(self, variables: PyTree, split: str) -> HasMetrics:
        """Evaluates variables on a split: "train", "validation" or "test"."""
