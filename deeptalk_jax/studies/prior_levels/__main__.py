"""Study: which level of the motion prior encodes emotion, and which the motion of the mouth.

    python -m deeptalk_jax.studies.prior_levels --model=outputs/demo/model --out=outputs/prior_levels.png

Pairs of clips are encoded, and the top codes of one clip are decoded with the bottom codes of the other. Writes a chart
and its numbers in a JSON file beside it; docs/prior_levels.md explains how to read them.
"""

import json

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.studies.figure_file import figure_path, write_figure

_MODEL = flags.DEFINE_string("model", None, "Model directory with the parts fer, dee and motion_prior.")
_OUT = flags.DEFINE_string(
    "out", "outputs/prior_levels.png", "Chart to write, .png; its numbers go to a .json file beside it."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Root directory of the datasets; default: the one that the prior was trained on."
)
_SPLIT = flags.DEFINE_string("split", "test", "Split to take clips from.")
_NUM_PAIRS = flags.DEFINE_integer("num_pairs", 64, "Maximum number of clip pairs per kind.", lower_bound=1)


def _prior_levels() -> None:
    out = figure_path(_OUT.value)

    from data_pipeline.records import open_split
    from deeptalk_jax.assembly.model_dir import load_part
    from deeptalk_jax.stages.bases import check_data_of_model
    from deeptalk_jax.studies.prior_levels.chart import draw_levels
    from deeptalk_jax.studies.prior_levels.measure import load_models, study

    models = load_models(_MODEL.value)
    data = load_part(_MODEL.value, "motion_prior").config.data
    data_dir = _DATA_DIR.value or data.data_dir
    check_data_of_model(_MODEL.value, data_dir, data.dataset)
    split = open_split(data_dir, data.dataset, _SPLIT.value)
    report = {"dataset": data.dataset, "split": _SPLIT.value}
    report |= study(models, [split[index] for index in range(len(split))], _NUM_PAIRS.value)
    write_figure(out, report, draw_levels)
    print(json.dumps(report))


if __name__ == "__main__":
    run_tool(_prior_levels, required=["model"])
