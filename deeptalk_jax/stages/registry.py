"""Stage names to stages."""

from ml_collections import ConfigDict

from deeptalk_jax.stages.base import Stage
from deeptalk_jax.stages.dee import DEEStage
from deeptalk_jax.stages.deeptalk import DEEPTalkStage
from deeptalk_jax.stages.fer import FERStage
from deeptalk_jax.stages.lip_reader import LipReaderStage
from deeptalk_jax.stages.motion_prior import MotionPriorStage

STAGES: dict[str, type[Stage]] = {
    stage.name: stage for stage in (FERStage, DEEStage, MotionPriorStage, DEEPTalkStage, LipReaderStage)
}


def make_stage(config: ConfigDict) -> Stage:
    """The stage that a config names.

    Raises:
        ValueError: an unknown stage.
    """
    if config.stage not in STAGES:
        raise ValueError(f"stage={config.stage!r} is not one of {', '.join(STAGES)}")
    return STAGES[config.stage](config)
