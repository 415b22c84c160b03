"""Trains one stage.

python train.py --config=configs/fer.py:variant=mini --workdir=outputs/fer

Any key of the config can be set: --config.num_steps=100. The same command again continues where it stopped.
"""

from absl import flags
from ml_collections import config_flags

from deeptalk_jax.cli import run_tool

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE[:variant=mini|base,ablation=NAME]", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Gets config, metrics, checkpoints and the trained model.")
_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps", "", "FIRST:LAST, counted from 1: steps of this run to trace into workdir/profile."
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes of this job, as SLURM, GKE or Cloud TPU started them."
)
flags.mark_flags_as_required(["config", "workdir"])


def _train() -> None:
    import jax

    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    from deeptalk_jax.stages.run import train
    from deeptalk_jax.training.step_trace import parse_steps

    model = train(_CONFIG.value, _WORKDIR.value, profile_steps=parse_steps(_PROFILE_STEPS.value))
    if jax.process_index() == 0:
        print(f"trained model: {model}")


if __name__ == "__main__":
    run_tool(_train)
