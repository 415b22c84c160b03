"""What the training loop asks of a stage."""

from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np
from jaxtyping import Array as KeyArray

from deeptalk_jax.types import Array

PyTree = Any


class Trainable(Protocol):
    """A model with its loss and its data."""

    name: str

    def init(self, key: KeyArray) -> PyTree:
        """Variables before training: `params` and mutable collections."""

    def pretrained_params(self) -> PyTree:
        """Top-level entries of `params` to start from instead of those of `init`."""

    def loss_fn(
        self,
        params: PyTree,
        model_state: PyTree,
        frozen: PyTree,
        batch: dict[str, Array],
        step: Array,
        key: KeyArray,
    ) -> tuple[Array, tuple[PyTree, dict[str, Array]]]:
        """Total loss, new mutable collections, and the unweighted terms by name."""

    def frozen_variables(self) -> PyTree:
        """Variables of earlier stages that the loss reads and nobody trains."""

    def batch_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global batch."""

    def train_batches(self, *, num_processes: int, process_index: int) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of the training batches; resumable (`get_state`, `set_state`)."""

    def example_names(self, batch: dict[str, np.ndarray]) -> list[str]:
        """Names of the rows of a training batch, for messages; empty where they have none."""

    def evaluate(self, variables: PyTree, split: str) -> dict[str, float]:
        """Metrics on a split."""
