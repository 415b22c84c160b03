"""Study: how each sampling control changes the spread of the samples and their lip error on held-out clips.

    python -m deeptalk_jax.studies.sampling_controls --model=outputs/demo/model --out=outputs/sampling_controls.png

Each clip is animated several times for each value of alpha, temperature_top, temperature_bottom and top_p. Writes a
chart and its numbers in a JSON file beside it; docs/sampling.md explains how to read them.
"""

import json

from absl import flags

from deeptalk_jax.cli import run_tool
from deeptalk_jax.studies.figure_file import figure_path, write_figure

_MODEL = flags.DEFINE_string("model", None, "Model directory, as written by training.")
_OUT = flags.DEFINE_string(
    "out", "outputs/sampling_controls.png", "Chart to write, .png; its numbers go to a .json file beside it."
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Root directory of the datasets; default: the one that the generator was trained on."
)
_SPLIT = flags.DEFINE_string("split", "test", "Split to take clips from.")
_NUM_CLIPS = flags.DEFINE_integer(
    "num_clips", 32, "Maximum number of clips, evenly spaced over the split.", lower_bound=1
)
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", 6, "Number of motions per clip.", lower_bound=2)


def _sampling_controls() -> None:
    out = figure_path(_OUT.value)

    import numpy as np

    from data_pipeline.records import open_split
    from deeptalk_jax.assembly.model_dir import load_part
    from deeptalk_jax.inference.api import DeepTalk
    from deeptalk_jax.stages.bases import check_data_of_model
    from deeptalk_jax.studies.sampling_controls.chart import draw_controls
    from deeptalk_jax.studies.sampling_controls.measure import study

    model = DeepTalk.load(_MODEL.value)
    data = load_part(_MODEL.value, "deeptalk").config.data
    data_dir = _DATA_DIR.value or data.data_dir
    check_data_of_model(_MODEL.value, data_dir, data.dataset)
    split = open_split(data_dir, data.dataset, _SPLIT.value)
    numbers = np.linspace(0, len(split) - 1, min(_NUM_CLIPS.value, len(split))).round().astype(int)
    report = {"dataset": data.dataset, "split": _SPLIT.value, "num_clips": len(numbers)}
    report["num_samples"] = _NUM_SAMPLES.value
    report["controls"] = study(model, [split[int(number)] for number in numbers], _NUM_SAMPLES.value)
    write_figure(out, report, draw_controls)
    print(json.dumps(report))


if __name__ == "__main__":
    run_tool(_sampling_controls, required=["model"])
