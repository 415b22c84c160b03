"""Evaluates the trained model of a work directory and prints its metrics.

python eval.py --workdir=outputs/fer

A run that is not finished is evaluated at its newest checkpoint. The last line of the output is one JSON object, which
is also written to WORKDIR/metrics.json, or to metrics_SPLIT.json for other splits than test. All stages
but lip_reader also write a page of charts into WORKDIR/eval.
"""

import json

from absl import flags
from ml_collections import config_flags

from deeptalk_jax.cli import run_tool

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Config file with the section `data` to use, as in training; by default that of the run. Of an unfinished run, the "
    "section `upstream` is used, too; the rest comes from the run. --config.data.KEY=VALUE changes a key.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Work directory of the training, which contains the model.")
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["train", "validation", "test"], "Split of the dataset to evaluate on."
)


def _evaluate() -> None:
    from deeptalk_jax.stages.run import evaluate

    metrics = evaluate(_CONFIG.value, _WORKDIR.value, _SPLIT.value)
    for name, value in metrics.items():
        print(f"{name:32s} {value if isinstance(value, str) else f'{value:.4g}'}")
    print(json.dumps(metrics))


if __name__ == "__main__":
    run_tool(_evaluate, required=["workdir"], config_of_workdir=True)
