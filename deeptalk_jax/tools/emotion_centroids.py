"""Adds the emotion centroids to a model directory; infer.py needs them for emotions given by name.

    python -m deeptalk_jax.tools.emotion_centroids --model=DIR --data_dir=outputs/data

Training saves them with the model. This tool computes them, from the clips of the training split, for imported weights
and for older models.
"""

from absl import flags

from deeptalk_jax.cli import run_tool

_MODEL = flags.DEFINE_string("model", None, "Model directory with the part dee.")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Root directory of the datasets; default: the one that DEE was trained on."
)
_DATASET = flags.DEFINE_string(
    "dataset", None, "Name of the dataset; default: the one that DEE was trained on."
)


def _emotion_centroids() -> None:
    from deeptalk_jax.assembly.build import build_dee
    from deeptalk_jax.assembly.model_dir import load_part, save_statistics
    from deeptalk_jax.stages.bases import check_data_of_model
    from deeptalk_jax.stages.dee_statistics import clip_emotions, emotion_centroids
    from deeptalk_jax.types import EMOTIONS

    part = load_part(_MODEL.value, "dee")
    data = part.config.copy_and_resolve_references().data
    data.data_dir = _DATA_DIR.value or data.data_dir
    data.dataset = _DATASET.value or data.dataset
    check_data_of_model(_MODEL.value, data.data_dir, data.dataset)
    centroids = emotion_centroids(clip_emotions(build_dee(part.config), part.variables, data))
    save_statistics(_MODEL.value, "dee", centroids._asdict())
    for name, num_clips in zip(EMOTIONS, centroids.num_clips, strict=True):
        print(f"{name:<10} {', '.join(map(str, num_clips))} clips of intensity 1, 2, 3")


if __name__ == "__main__":
    run_tool(_emotion_centroids, required=["model"])
