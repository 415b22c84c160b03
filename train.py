"""Trains one stage of DEEPTalk and exports the trained model to WORKDIR/model.

python train.py --config=configs/fer.py:variant=mini --workdir=outputs/fer

Every key of the config can be changed: --config.num_steps=100. Running the same command again resumes a run that was
interrupted.
"""

from absl import flags
from ml_collections import config_flags

from deeptalk_jax.cli import run_tool

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file of the stage, FILE[:variant=mini|base,ablation=NAME]. --config.KEY=VALUE changes a key.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Directory for the config, metrics, checkpoints and the trained model; may be in an object store, gs://...",
)
_PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps",
    "",
    "FIRST:LAST, such as 10:15: steps to trace into WORKDIR/profile, counted from 1 at the first step of this run.",
)
_PRECOMPUTE_FEATURES = flags.DEFINE_string(
    "precompute_features",
    None,
    "Directory in which to store the outputs of frozen networks for all training windows, so that they are computed "
    "once and not in every step. Needs --config.data.windows_per_clip=N.",
)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed",
    False,
    "Train together with the other processes of this job, which SLURM, Kubernetes or Cloud TPU has started.",
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0; needed only without a cluster environment."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes; needed with --coordinator."
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Index of this process, from 0; needed with --coordinator."
)


def _config_source() -> str:
    """Returns the config file and the keys that flags change."""
    flag = flags.FLAGS["config"]
    changes = config_flags.get_override_values(flag)
    changed = ", ".join(f"{key}={value}" for key, value in changes.items())
    return config_flags.get_config_filename(flag) + (f"; changed: {changed}" if changed else "")


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
        source=_config_source(),
    )
    if jax.process_index() == 0:
        print(f"trained model: {model}")


if __name__ == "__main__":
    run_tool(_train, required=["config", "workdir"])
