"""Command that builds a dataset.

    python -m data_pipeline.build --dataset=synthetic_talk --data_dir=DIR --num_clips=2000

The command returns at once if the dataset exists already. The number of clips and the seed are part of the dataset's
name, so datasets with different values are kept side by side.
"""

from absl import flags

from data_pipeline import registry
from data_pipeline.prepare import prepare
from deeptalk_jax.cli import run_tool
from deeptalk_jax.errors import UserError

_DATASET = flags.DEFINE_string("dataset", None, "Name of the dataset to build, such as synthetic_talk.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Root directory of all datasets.")
_NUM_CLIPS = flags.DEFINE_integer("num_clips", 2000, "Number of clips, summed over all splits.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the dataset, 0 or more.")
_NUM_SHARDS = flags.DEFINE_integer(
    "num_shards",
    None,
    "Files per split; the records do not depend on it. Default: 4, or the clips of the smallest split if fewer.",
)
_NUM_WORKERS = flags.DEFINE_integer(
    "num_workers", None, "Worker processes; the records do not depend on it. Default: one per CPU core."
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Build the dataset again if it exists already.")


def _build() -> None:
    if _DATASET.value is None:
        raise UserError(f"--dataset is not given; expected one of: {', '.join(sorted(registry.BUILDERS))}")
    prepare(
        _DATASET.value,
        _DATA_DIR.value,
        num_clips=_NUM_CLIPS.value,
        seed=_SEED.value,
        num_shards=_NUM_SHARDS.value,
        num_workers=_NUM_WORKERS.value,
        overwrite=_OVERWRITE.value,
    )


if __name__ == "__main__":
    run_tool(_build)
