"""What all stages share: their data, the shapes of a batch, and the models of earlier stages."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipeline.loader import clip_loader, train_loader
from data_pipeline.records import open_split
from deeptalk_jax.assembly.build import build_speech_encoder
from deeptalk_jax.assembly.model_dir import Part, check_variables, load_part
from deeptalk_jax.errors import UserError
from deeptalk_jax.training.trainable import Trainable
from deeptalk_jax.types import MOTION_DIM, SAMPLES_PER_FRAME

PyTree = Any


class Stage(Trainable):
    """A stage of training; subclasses add the model, the loss and the evaluation.

    Args:
        config: resolved config of the stage.
        upstream: parts of earlier stages by name, or their shapes, instead of those in the directories of
            `config.upstream`.

    Attributes:
        name: stage name.
        config: the config.
        upstream_parts: which parts to take from which of the `config.upstream` directories.
        upstream: those parts, by name.
    """

    name: str
    upstream_parts: Mapping[str, tuple[str, ...]] = MappingProxyType({})

    def __init__(self, config: ConfigDict, upstream: dict[str, Part] | None = None):
        self.config = config
        self.upstream = self._load_upstream() if upstream is None else upstream

    @classmethod
    def exported_part(cls) -> str:
        """Name of the part that it trains, in the model directory that it exports."""
        return cls.name

    def _load_upstream(self) -> dict[str, Part]:
        parts = {}
        for flag, names in self.upstream_parts.items():
            directory = self.config.upstream[flag]
            if not directory:
                raise UserError(
                    f"stage {self.name!r} builds on {flag!r}: give its model directory, "
                    f"--config.upstream.{flag}=DIR"
                )
            parts.update({name: load_part(directory, name) for name in names})
        return parts

    def pretrained_speech(self) -> PyTree:
        """Imported weights of the speech encoder that `config.model.speech` describes; none for kind mel.

        Raises:
            UserError: `config.pretrained.speech` names no model directory that holds them, or one where none are
                wanted.
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

    def constants(self) -> PyTree:
        """Variables of the upstream parts."""
        return {name: part.variables for name, part in self.upstream.items()}

    def batch_shapes(self, batch_size: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes of a global training batch."""
        data = self.config.data
        rows = data.batch_size if batch_size is None else batch_size

        def shape(*dims, dtype=np.int32):
            return jax.ShapeDtypeStruct((rows, *dims), dtype)

        labels = ("num_frames", "num_samples", "emotion", "intensity", "speaker", "identity")
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
        """Random windows of the training split, this process's rows only."""
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
            features=window_features,
        )

    def example_names(self, batch: Mapping[str, np.ndarray]) -> list[str]:
        """Names of the clips in a training batch, row by row; none where its rows are no clips."""
        if "clip" not in batch:
            return []
        data = self.config.data
        records = open_split(data.data_dir, data.dataset, "train", cache_bytes=0)
        return [records[int(index)].clip_name for index in batch["clip"]]

    def clips(self, split: str) -> Iterator[dict[str, np.ndarray]]:
        """Batches of whole clips in fixed order, rows of padding removed from none."""
        data = self.config.data
        return clip_loader(
            data.data_dir,
            data.dataset,
            split,
            max_frames=data.max_clip_frames,
            batch_size=data.eval_batch_size,
            limit=data.eval_clips or None,
        )

    def statistics(self, variables: PyTree) -> dict[str, np.ndarray]:
        """Arrays to measure on the training data once training is done, and to keep with the part."""
        return {}

    def export_parts(self, variables: PyTree) -> dict[str, Part]:
        """This stage's part and those it builds on, for `model_dir.save_model`."""
        part = Part(self.config, jax.device_get(variables), self.statistics(variables))
        return {**self.upstream, self.exported_part(): part}


def merged(params: PyTree, state: PyTree) -> PyTree:
    """Variables for `Module.apply`."""
    return {"params": params, **state}
