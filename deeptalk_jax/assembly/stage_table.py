"""The table of stages: the one place that maps a stage name to its config, class, parts and metrics.

Training, evaluation, the demo, ablations, benchmarks and tests read these rows, so a new stage is one row here, one
config file and one class.
"""

import importlib
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType, ModuleType
from typing import Literal, NamedTuple

from deeptalk_jax.errors import ConfigError

Direction = Literal["higher", "lower"]


class StageRow(NamedTuple):
    """Row of a stage in the table.

    Attributes:
        name: name of the stage, the value of `config.stage`.
        config_file: config file, relative to the repository, as `--config` takes it.
        class_path: class as "module:Class"; imported on demand, so that reading the table imports no stage.
        upstream: parts that the stage reads from the model directory of each flag `--config.upstream.FLAG`.
        exported_part: name of the part that the stage trains, in the model directory that it exports.
        main_metrics: metrics that ablation charts show by default, with the direction that is better.
    """

    name: str
    config_file: str
    class_path: str
    upstream: Mapping[str, tuple[str, ...]]
    exported_part: str
    main_metrics: Mapping[str, Direction]

    @property
    def config_module(self) -> ModuleType:
        """Module of the config file, with `get_config` and `ABLATIONS`."""
        return importlib.import_module(".".join(PurePosixPath(self.config_file).with_suffix("").parts))

    def load_class(self) -> type:
        """Imports and returns the class of the stage, a `stages.base.Stage`."""
        module, _, name = self.class_path.partition(":")
        return getattr(importlib.import_module(module), name)


def _row(
    name: str,
    stage_class: str,
    *,
    metrics: Mapping[str, Direction],
    upstream: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    exported_part: str | None = None,
) -> StageRow:
    """Returns the row of a stage whose files and exported part have the name of the stage."""
    return StageRow(
        name,
        f"configs/{name}.py",
        f"deeptalk_jax.stages.{name}:{stage_class}",
        upstream,
        exported_part or name,
        metrics,
    )


_ROWS = (
    _row(
        "fer",
        "FERStage",
        metrics={
            "frame_accuracy": "higher",
            "class_mean_accuracy": "higher",
            "clip_accuracy": "higher",
        },
    ),
    _row(
        "dee",
        "DEEStage",
        upstream={"fer": ("fer",)},
        metrics={
            "speech_to_motion_r1": "higher",
            "motion_to_speech_r1": "higher",
            "ece": "lower",
            "motion_variance_intensity_spearman": "lower",  # faint emotion should be the more ambiguous
        },
    ),
    _row(
        "motion_prior",
        "MotionPriorStage",
        metrics={
            "vertex_error_mm": "lower",
            "lip_error_mm": "lower",
            "used_top": "higher",
            "used_bottom": "higher",
        },
    ),
    _row(
        "deeptalk",
        "DEEPTalkStage",
        upstream={"dee": ("fer", "dee"), "motion_prior": ("motion_prior",)},
        metrics={
            "jaw_correlation": "higher",
            "lip_error_mm": "lower",
            "vertex_error_mm": "lower",
            "emotion_accuracy": "higher",
        },
    ),
    _row(
        "lip_reader",
        "LipReaderStage",
        metrics={"frame_accuracy": "higher", "class_mean_accuracy": "higher"},
    ),
    _row(
        "deeptalk_stage2",
        "DEEPTalkStage2",
        upstream={
            "deeptalk": ("fer", "dee", "motion_prior", "deeptalk"),
            "lip_reader": ("lip_reader",),
        },
        exported_part="deeptalk",  # it replaces the generator that it starts from
        metrics={
            "emotion_accuracy": "higher",
            "speech_to_motion_r1": "higher",
            "lip_error_mm": "lower",
            "jaw_correlation": "higher",
        },
    ),
)
# Rows by stage name, in an order in which each stage comes after those that it builds on.
STAGES: Mapping[str, StageRow] = MappingProxyType({row.name: row for row in _ROWS})


def stage_row(name: str) -> StageRow:
    """Returns the row of a stage.

    Raises:
        ConfigError: there is no stage of that name; the message lists the stages.
    """
    if name not in STAGES:
        raise ConfigError(f"stage={name!r}: expected one of {', '.join(STAGES)}")
    return STAGES[name]
