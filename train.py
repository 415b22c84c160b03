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
flags.mark_flags_as_required(["config", "workdir"])


def _train() -> None:
    from deeptalk_jax.stages.run import train

    model = train(_CONFIG.value, _WORKDIR.value)
    print(f"trained model: {model}")


if __name__ == "__main__":
    run_tool(_train)
