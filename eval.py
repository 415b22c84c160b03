"""Evaluates the trained model of a work directory; the last line is one JSON object, also in metrics.json.

Stages fer and dee also write a page of pictures into `eval/` of the work directory; see docs/dee.md.

python eval.py --config=configs/fer.py:variant=mini --workdir=outputs/fer --split=test
"""

import json

from absl import flags
from ml_collections import config_flags

from deeptalk_jax.cli import run_tool

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config of the stage, as in training.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of the training.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test"], "Split to evaluate on.")
flags.mark_flags_as_required(["config", "workdir"])


def _evaluate() -> None:
    from deeptalk_jax.stages.run import evaluate

    metrics = evaluate(_CONFIG.value, _WORKDIR.value, _SPLIT.value)
    for name, value in metrics.items():
        print(f"{name:32s} {value if isinstance(value, str) else f'{value:.4g}'}")
    print(json.dumps(metrics))


if __name__ == "__main__":
    run_tool(_evaluate)
