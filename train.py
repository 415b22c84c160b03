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
_PRECOMPUTE_FEATURES = flags.DEFINE_string(
    "precompute_features",
    None,
    "DIR to keep what frozen networks hear in the training windows; needs --config.data.windows_per_clip.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "Join the other processes of this job, as SLURM, GKE or Cloud TPU started them."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of the first process, where nobody else says how they find each other."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --coordinator: how many there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --coordinator: which of them this is, from 0.")
flags.mark_flags_as_required(["config", "workdir"])


def _train() -> None:
    import jax

    from deeptalk_jax.training.processes import join_processes

    place = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if _DISTRIBUTED.value or place != (None, None, None):
        join_processes(*place)
    from deeptalk_jax.stages.run import train
    from deeptalk_jax.training.step_trace import parse_steps

    model = train(
        _CONFIG.value,
        _WORKDIR.value,
        profile_steps=parse_steps(_PROFILE_STEPS.value),
        features_dir=_PRECOMPUTE_FEATURES.value,
    )
    if jax.process_index() == 0:
        print(f"trained model: {model}")


if __name__ == "__main__":
    run_tool(_train)
