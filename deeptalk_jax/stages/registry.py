"""Stage names to stages."""

from ml_collections import ConfigDict

from deeptalk_jax.stages.base import Stage
from deeptalk_jax.stages.dee import DEEStage
from deeptalk_jax.stages.deeptalk import DEEPTalkStage
from deeptalk_jax.stages.deeptalk_stage2 import DEEPTalkStage2
from deeptalk_jax.stages.fer import FERStage
from deeptalk_jax.stages.lip_reader import LipReaderStage
from deeptalk_jax.stages.motion_prior import MotionPriorStage

STAGES: dict[str, type[Stage]] = {
    stage.name: stage
    for stage in (FERStage, DEEStage, MotionPriorStage, DEEPTalkStage, LipReaderStage, DEEPTalkStage2)
}


def stage_class(name: str) -> type[Stage]:
    """The stage of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in STAGES:
        raise ValueError(f"stage={name!r} is not one of {', '.join(STAGES)}")
    return STAGES[name]


def make_stage(config: ConfigDict) -> Stage:
    """The stage that a config names; for what it raises see `stage_class`."""
    return stage_class(config.stage)(config)
