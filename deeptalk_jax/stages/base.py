"""Base class of the training stages: config, upstream parts and data.

A subclass adds the model, the loss and the evaluation; `training.trainable.Trainable` documents the methods that the
training loop calls. The row of a stage in `assembly/stage_table.py` says which parts it reads and which it exports.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.loader import clip_loader, train_loader
from data_pipeline.records import describe_split, open_split
from deeptalk_jax.assembly.build import build_speech_encoder
from deeptalk_jax.assembly.model_dir import Part, check_variables, load_part
from deeptalk_jax.assembly.stage_table import Direction, stage_row
from deeptalk_jax.errors import UserError
from deeptalk_jax.head.load import basis_of_head, load_head
from deeptalk_jax.head.model import describe_masks
from deeptalk_jax.stages.inputs import input_digests, model_of
from deeptalk_jax.training.trainable import Trainable
from deeptalk_jax.types import MOTION_DIM, SAMPLES_PER_FRAME

PyTree = Any


class Stage(Trainable):
    """A training stage with its config, its data and the parts of earlier stages.

    Args:
        config: resolved config of the stage.
        upstream: parts of earlier stages by name, which may hold shapes in place of arrays; None to load them from the
            directories of `config.upstream`.

    Attributes:
        config: resolved config of the stage.
        upstream: parts of earlier stages by name.
        uses_masks: whether losses or metrics of the stage depend on the masks of the head.

    Raises:
        UserError: a directory of `config.upstream` is missing, is damaged or lacks a part.
    """

    uses_masks = False

    def __init__(self, config: ConfigDict, upstream: dict[str, Part] | None = None):
        self.config = config
        self.upstream = self._load_upstream() if upstream is None else upstream

    def upstream_parts(self) -> Mapping[str, tuple[str, ...]]:
        """Returns the names of the parts that the stage reads, by flag of `config.upstream`."""
        return stage_row(self.name).upstream

    def _load_upstream(self) -> dict[str, Part]:
        parts = {}
        for flag, names in self.upstream_parts().items():
            directory = self.config.upstream[flag]
            if not directory:
                raise UserError(
                    f"stage {self.name!r} builds on {flag!r}: give its model directory, "
                    f"--config.upstream.{flag}=DIR"
                )
            parts.update({name: load_part(directory, name) for name in names})
        return parts

    def upstream_variables(self) -> PyTree:
        """Returns the variables of the upstream parts that the loss reads, by name of the part."""
        return {name: part.variables for name, part in self.upstream.items()}

    def constants(self) -> PyTree:
        """Returns the variables of the upstream parts."""
        return self.upstream_variables()

    def starting_variables(self) -> PyTree | None:
        """Returns the weights of `config.init_from`, or None.

        Raises:
            UserError: the directory has no part of this stage, or the weights do not fit the model of the config.
        """
        directory = self.config.init_from
        if not directory:
            return None
        try:
            part = load_part(model_of(directory), stage_row(self.name).exported_part)
            check_variables(self.name, part.variables, jax.eval_shape(self.init, jax.random.key(0)))
        except UserError as error:
            raise UserError(f"--config.init_from={directory}: {error}") from error
        return part.variables

    def input_digests(self) -> Mapping[str, str]:
        """Returns the digest of every input of the run, see `stages.inputs`."""
        return input_digests(self.config)

    def pretrained_speech(self) -> PyTree:
        """Returns imported weights for the speech encoder of `config.model.speech`; nothing for kind mel.

        Raises:
            UserError: `config.pretrained.speech` is not a model directory with weights that fit, or kind mel, which is
                trained from scratch, is given one.
        """
        kind, directory = self.config.model.speech.kind, self.config.pretrained.speech
        if kind == "mel":
            if directory:
                raise UserError(
                    f"--config.pretrained.speech={directory}: speech.kind='mel' is trained from scratch"
                )
            return {}
        if not directory:
            raise UserError(
                f"stage {self.name!r} starts from the weights of {kind}: import them "
                f"(python -m deeptalk_jax.tools.import_published --{kind}=... --out=DIR) and give that directory, "
                "--config.pretrained.speech=DIR"
            )
        part = load_part(directory, kind)
        encoder = build_speech_encoder(self.config.model.speech)
        shapes = jax.eval_shape(encoder.init, jax.random.key(0), np.zeros((1, SAMPLES_PER_FRAME), np.float32))
        try:
            check_variables(kind, part.variables, shapes)
        except UserError as error:
            raise UserError(f"--config.pretrained.speech={directory}: {error}") from error
        return {"speech_encoder": part.variables["params"]}

    def batch_shapes(self, batch_size: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a global training batch.

        Args:
            batch_size: number of rows; None for `config.data.batch_size`.
        """
        data = self.config.data
        rows = data.batch_size if batch_size is None else batch_size

        def shape(*dims, dtype=np.int32):
            return jax.ShapeDtypeStruct((rows, *dims), dtype)

        labels = ("num_frames", "num_samples", "clip", "emotion", "intensity", "speaker", "identity")
        return {
            "audio": shape(data.window_frames * SAMPLES_PER_FRAME, dtype=np.float32),
            "motion": shape(data.window_frames, MOTION_DIM, dtype=np.float32),
            "viseme": shape(data.window_frames),
            **{name: shape() for name in labels},
        }

    def train_batches(
        self,
        *,
        num_processes: int,
        process_index: int,
        window_features: Sequence[Mapping[str, np.ndarray]] | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Returns batches of random windows of the training split."""
        data = self.config.data
        return train_loader(
            data.data_dir,
            data.dataset,
            "train",
            window_frames=data.window_frames,
            batch_size=data.batch_size,
            seed=self.config.seed,
            num_processes=num_processes,
            process_index=process_index,
            num_threads=data.num_threads,
            cache_bytes=data.cache_bytes,
            unpack_dir=data.unpack_dir,
            windows_per_clip=data.windows_per_clip,
            window_features=window_features,
        )

    def validation_batches(
        self, num_batches: int, *, num_processes: int, process_index: int
    ) -> Sequence[dict[str, np.ndarray]]:
        """Returns batches of fixed windows of the validation split."""
        data = self.config.data
        batches = train_loader(
            data.data_dir,
            data.dataset,
            "validation",
            window_frames=data.window_frames,
            batch_size=data.batch_size,
            seed=self.config.seed,
            num_processes=num_processes,
            process_index=process_index,
            num_threads=0,
            cache_bytes=0,
        )
        return list(itertools.islice(batches, num_batches))

    def describe_data(self) -> str:
        """Returns the name, the directory and the size of the training split."""
        data = self.config.data
        return describe_split(data.data_dir, data.dataset, "train")

    def describe_head(self) -> str:
        """Returns the head and its basis; where the stage uses masks, also their sizes and where they come from."""
        spec = self.config.head
        if not self.uses_masks:
            return f"{spec}, basis {basis_of_head(spec)}"
        head = load_head(spec)
        return f"{spec}, basis {head.basis}; {describe_masks(head)}"

    def example_names(self, batch: Mapping[str, np.ndarray]) -> list[str]:
        """Returns the names of the clips that the windows of a batch are from; none for frames of a file."""
        if "clip" not in batch:
            return []
        data = self.config.data
        records = open_split(data.data_dir, data.dataset, "train", cache_bytes=0)
        return [records[int(index)].clip_name for index in batch["clip"]]

    def clips(self, split: str) -> Iterator[dict[str, np.ndarray]]:
        """Returns batches of whole clips in a fixed order; `valid` is false for padding rows, which are kept."""
        data = self.config.data
        return clip_loader(
            data.data_dir,
            data.dataset,
            split,
            max_frames=data.max_clip_frames,
            batch_size=data.eval_batch_size,
            limit=data.eval_clips or None,
        )

    def criteria(self) -> Mapping[str, Direction]:
        """Returns the main metrics of the stage."""
        return stage_row(self.name).main_metrics

    def statistics(self, variables: PyTree) -> dict[str, np.ndarray]:
        """Measures arrays on the training data after training, which are saved with the part; none by default."""
        return {}

    def export_parts(self, variables: PyTree) -> dict[str, Part]:
        """Returns the trained part and the upstream parts, by name, for `model_dir.save_model`."""
        part = Part(self.config, jax.device_get(variables), self.statistics(variables))
        return {**self.upstream, stage_row(self.name).exported_part: part}


def make_stage(config: ConfigDict) -> Stage:
    """Builds the stage that `config.stage` names.

    Raises:
        ConfigError: there is no stage of that name, or a value of the config cannot be used.
        UserError: see `Stage`.
    """
    return stage_row(config.stage).load_class()(config)


def merged(params: PyTree, model_state: PyTree) -> PyTree:
    """Returns the variables for `Module.apply` from the parameters and the mutable collections."""
    return {"params": params, **model_state}
